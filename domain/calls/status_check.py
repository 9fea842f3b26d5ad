"""Answer whether a call must end now, and how many seconds it may still last.

This module only reads and takes no locks. The tick decides independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from base.enums import CallBillingState, EndCause, FreezeReason
from base.problems.calls import CALL_ENDED
from base.problems.wallet import FROZEN_WALLET, INSUFFICIENT_FUNDS
from domain.calls.billing import LIVE_STATES, billing_state
from domain.calls.rates import Rate
from domain.calls.rows import CallNotFound
from domain.calls.settings import Terms

#: One statement reads everything, because the request is made during a conversation.
_SELECT_CALL = """
    SELECT c.provider_call_id IS NOT DISTINCT FROM :call AS is_providers,
        c.organization_id, c.merged_into,
        c.status, c.refusal, c.settled_at, c.settled_by, c.cost_micros, c.withheld_for,
        c.end_cause, c.end_decided_at, c.metered_from, c.debt_micros, c.micros_per_minute,
        c.increment_seconds, c.minimum_micros, coalesce(h.reserved_micros, 0) AS hold_micros,
        t.ending_text,
        w.balance_micros - w.held_micros AS available_micros, w.debt_limit_micros,
        (SELECT coalesce(sum(l.debt_micros), 0) FROM calls l
         WHERE l.organization_id = c.organization_id AND l.settled_at IS NULL
           AND l.debt_micros > 0) AS lent_micros,
        ARRAY(SELECT f.reason FROM wallet_freezes f
              WHERE f.organization_id = c.organization_id AND f.lifted_at IS NULL
                AND (f.override_until IS NULL OR f.override_until <= :now)) AS freezes
    FROM calls c JOIN wallets w USING (organization_id)
        LEFT JOIN call_terms t USING (organization_id)
        LEFT JOIN call_holds h ON (h.organization_id, h.call_id) = (c.organization_id, c.id)
            AND h.status = 'open'
"""
#: Our id is unique only within its organization. Two rows are enough to see that an id is
#: ambiguous.
_WHERE_ID = " WHERE c.provider_call_id = :call OR c.id = :call ORDER BY is_providers DESC LIMIT 2"
_WHERE_ORGANIZATION_AND_ID = (
    " WHERE c.organization_id = :org AND (c.id = :call OR c.provider_call_id = :call)"
    " ORDER BY c.id = :call DESC LIMIT 1"
)


@dataclass(frozen=True)
class StatusAnswer:
    """Whether the call must end, with reason and message; else the seconds left."""

    end_call: bool
    reason: str | None
    message: str | None
    remaining_seconds: int


def check_status(
    session: Session,
    call_id: str,
    *,
    organization_id: str | None,
    reported_seconds: int | None,
    now: datetime,
) -> StatusAnswer:
    """Return whether a call must end now, for example because its credit is used up.

    The credit is the hold, the available money, and what the call may borrow within the debt limit.
    The remaining seconds are those that the credit pays for at the call's rate, less the time
    already talked. Our meter measures that time. Until it starts, `reported_seconds` counts.

    `call_id` is our id or the provider's. Without `organization_id`, our id is accepted only if a
    single call has it. Raises: CallNotFound. Source: the status check of the prepaid engine's
    document.
    """
    query = _SELECT_CALL + (_WHERE_ID if organization_id is None else _WHERE_ORGANIZATION_AND_ID)
    values = {"call": call_id, "org": organization_id, "now": now}
    rows = session.execute(text(query), values).all()
    if not rows or (len(rows) > 1 and not rows[0].is_providers):
        raise CallNotFound(call_id)
    row = rows[0]
    if row.merged_into is not None:
        values |= {"call": row.merged_into, "org": row.organization_id}
        row = session.execute(text(_SELECT_CALL + _WHERE_ORGANIZATION_AND_ID), values).one()
    reason = _end_reason(row)
    remaining = 0 if reason else _remaining_seconds(row, reported_seconds, now)
    if reason is None and remaining <= 0:
        reason = INSUFFICIENT_FUNDS
    if reason is None:
        return StatusAnswer(False, None, None, remaining)
    return StatusAnswer(True, reason, row.ending_text or Terms().ending_text, 0)


def _end_reason(row: Row[Any]) -> str | None:
    state = billing_state(row)
    if state is CallBillingState.REFUSED:
        return str(row.refusal)
    if state is CallBillingState.TALKING_UNPAID:
        return EndCause.SETTLED.code
    if state not in LIVE_STATES:
        return CALL_ENDED
    if row.end_cause is not None:
        return EndCause(row.end_cause).code
    # A subscription's end may be reported but not confirmed yet. Until then, a call continues on
    # its hold.
    if set(row.freezes) - {FreezeReason.SUBSCRIPTION_INACTIVE}:
        return FROZEN_WALLET
    return None


def _remaining_seconds(row: Any, reported_seconds: int | None, now: datetime) -> int:
    rate = Rate(row.micros_per_minute, row.increment_seconds, row.minimum_micros)
    credit_micros = row.hold_micros + row.debt_micros
    if not row.freezes:
        used_micros = min(0, row.available_micros)
        debt_room_micros = row.debt_limit_micros + used_micros - int(row.lent_micros)
        credit_micros += max(0, row.available_micros) + max(0, debt_room_micros)
    talked_seconds = reported_seconds or 0
    if row.metered_from is not None:
        talked_seconds = max(0, int((now - row.metered_from).total_seconds()))
    return max(0, rate.seconds_for(credit_micros) - talked_seconds)
