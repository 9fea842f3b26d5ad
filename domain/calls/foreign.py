"""Handle reserved calls that use another organization's number or assistant.

The organization that owns them pays, as for any adopted call, and the reservation is released. If
number and assistant belong to different organizations, only an operator can decide which one pays.
The call is then ended, and its cost stays open.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallOrigin, EndCause
from base.facts import CallFacts
from base.problems.calls import FOREIGN_NUMBER
from db.locks import lock_call, lock_wallet
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, raise_alert
from domain.calls.billing import is_cost_settled
from domain.calls.ending import decide_ending
from domain.calls.entry_points import belongs_to_another, find_entry_point
from domain.calls.rows import mark_anomaly, note
from domain.calls.settlement import settle


def is_foreign(session: Session, call: Call, facts: CallFacts) -> bool:
    """Return whether a reserved call uses another organization's number or assistant.

    If the call's row already has the report's number and assistant, no query is made.
    """
    if call.origin != CallOrigin.RESERVED or call.refusal == FOREIGN_NUMBER:
        return False
    known = (call.phone_number_id, call.assistant_id)
    if known == (facts.phone_number_id, facts.assistant_id):
        return False
    return belongs_to_another(
        session,
        call.organization_id,
        assistant_id=facts.assistant_id,
        phone_numbers=(facts.phone_number_id,),
    )


def owner_of(session: Session, facts: CallFacts) -> str | None:
    """Return the one organization that owns a report's number and assistant, if any."""
    entry_point = find_entry_point(
        session, assistant_id=facts.assistant_id, phone_numbers=(facts.phone_number_id,)
    )
    return None if entry_point is None else entry_point.organization_id


def release_foreign_reservation(
    session: Session, reservation: Call, owner: str | None, facts: CallFacts, now: datetime
) -> Call | None:
    """Take a call from the organization that reserved it, and alert both.

    Return None if the owner can now adopt the call. Return the reservation's row if the reservation
    keeps the call, because the call was already charged or has no single owner. Locks the wallets
    in the order of their organization ids. Replay: changes nothing.
    """
    for organization_id in sorted({reservation.organization_id, owner or ""} - {""}):
        lock_wallet(session, organization_id)
    call = lock_call(session, reservation.organization_id, reservation.id)
    if call is None or call.refusal == FOREIGN_NUMBER:
        return None if call is None or owner is not None else call
    _alert_foreign(session, call, owner, facts, now)
    mark_anomaly(call, "foreign_number")
    if is_cost_settled(call):
        return call
    call.refusal = FOREIGN_NUMBER
    note(session, call, "refused", now, f"the number or assistant belongs to {owner or 'others'}")
    if owner is None:
        decide_ending(session, call, EndCause.FOREIGN_NUMBER, now)
        return call
    call.provider_call_id = None
    settle(session, call, duration_ms=0, cost_micros=0, by="withdrawn", now=now)
    return None


def _alert_foreign(
    session: Session, call: Call, owner: str | None, facts: CallFacts, now: datetime
) -> None:
    for organization_id in {call.organization_id, owner or call.organization_id}:
        raise_alert(
            session,
            AlertKind.CALL_FOREIGN,
            organization_id,
            facts.external_id,
            severity=Severity.CRITICAL,
            details={
                "reserved_by": call.organization_id,
                "reservation": call.id,
                "owner": owner,
                "phone_number": facts.phone_number_id,
                "assistant": facts.assistant_id,
                "charged_micros": call.cost_micros if is_cost_settled(call) else None,
            },
            now=now,
        )
