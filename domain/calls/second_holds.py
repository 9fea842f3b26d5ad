"""Reserve a second hold for a call in progress whose first hold is closed.

The first hold was released, or it expired. A hold is released if the admission of its call is
withdrawn. The ledger keeps one hold for each call id and never reopens it. So the call goes on in a
new row with a new id, and the first row is merged into the new one. Both ids then lead to one call
with one charge.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallStatus
from base.facts import CallFacts
from base.ids import new_id
from db.locks import lock_wallet
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, clear_alerts
from domain.calls.adoption import hold_or_end
from domain.calls.billing import CLOSED_UNPRICED, billing_state
from domain.calls.opening import insert_call
from domain.calls.rows import TALKING, has_rate, note, rate_of

#: Columns that the new row copies from the old one. The old row's rate is copied separately.
_COPIED_COLUMNS = (
    "twilio_call_sid",
    "twilio_account_sid",
    "direction",
    "our_party",
    "their_party",
    "assistant_id",
    "phone_number_id",
    "appointment_id",
    "campaign_id",
    "contact_id",
    "origin",
    "fail_open",
    "rate_route",
    "number_seen",
    "max_duration_seconds",
    "metered_from",
    "oddities",
)


def reserve_second_hold(session: Session, call: Call, facts: CallFacts, now: datetime) -> Call:
    """Reserve again for a closed call in progress; return the row that continues it.

    This applies to a call that was closed without a price. If the ledger refuses the hold, the call
    is ended, as an adopted call would be. Any other call, and a call whose end is decided, is
    returned unchanged.

    The wallet and the call must already be locked. Replay: the new row is found by its provider's
    id.
    """
    is_closed = billing_state(call) in CLOSED_UNPRICED
    may_continue = call.status != CallStatus.ENDED and call.end_decided_at is None
    if facts.status not in TALKING or not is_closed or not may_continue:
        return call
    wallet = lock_wallet(session, call.organization_id)
    if wallet is None:
        return call
    # The provider's id is unique, so the first row must lose it before the second row gets it.
    call.provider_call_id = None
    session.flush()
    copied_values = {name: getattr(call, name) for name in _COPIED_COLUMNS}
    new_row = Call(
        organization_id=call.organization_id,
        id=new_id("call"),
        provider_call_id=facts.external_id,
        **copied_values,
    )
    if has_rate(call):
        hold_or_end(session, new_row, wallet, rate_of(call), now, names_provider=False)
    else:
        insert_call(session, new_row, rate_of(call), call.currency, now)
    new_row.created_at, new_row.status = call.created_at, call.status
    call.merged_into, call.settled_by, call.tick_at = new_row.id, "merged", None
    session.flush()
    note(session, new_row, "held_again", now, f"the hold of {call.id} was released")
    note(session, call, "merged", now, f"the call continues as {new_row.id}")
    for kind in (AlertKind.CALL_UNSETTLED, AlertKind.HOLD_UNANSWERED):
        clear_alerts(session, kind, call.organization_id, call.id, now=now)
    return new_row
