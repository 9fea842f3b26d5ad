"""End calls: decide once, send orders in rounds, wait for the provider's report.

In the first round, Vapi speaks the ending text and ends the call. Later rounds only end it. The
worker also completes the leg at Twilio if Vapi accepts no order, and always from the third round
on. From the sixth round on, an alert is raised. The hold stays until the provider reports the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import EndCause
from base.operators import Operator
from db.locks import lock_call, lock_live_calls
from db.models import Brand
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, raise_alert
from domain.calls.billing import CONTINUING_STATES, billing_state, is_over
from domain.calls.rows import (
    CallNotFound,
    call_and_wallet,
    end_code,
    is_permission,
    note,
    stage_for,
)
from domain.calls.settings import terms_of
from domain.jobs.types import END_CALL, WARN_CALL
from domain.operator_notes import record_action

#: Rounds that use Twilio only if Vapi accepts no order. All later rounds use Twilio too.
VAPI_ROUNDS = 2
#: The first round that raises an alert.
ALERT_ROUND = 6
#: Seconds until the next round: after speech, after an order to end, and from ALERT_ROUND on.
_AFTER_SPEECH_SECONDS = 3.0
_AFTER_ORDER_SECONDS = 0.8
_AFTER_ALERT_SECONDS = 15.0


@dataclass(frozen=True)
class Round:
    """One round of ending a call: what its orders at Vapi and Twilio need."""

    number: int
    provider_call_id: str | None
    #: The Twilio subaccounts to try. Exactly one if the call's subaccount is known.
    twilio_account_sids: tuple[str, ...]
    twilio_call_sid: str | None
    text: str

    @property
    def speaks(self) -> bool:
        """Whether Vapi speaks the ending text before it ends the call."""
        return self.number == 1

    @property
    def always_uses_twilio(self) -> bool:
        """Whether the leg is completed at Twilio even if Vapi accepts the order."""
        return self.number > VAPI_ROUNDS


def decide_ending(session: Session, call: Call, cause: EndCause, now: datetime) -> bool:
    """Decide that a call ends; return False if nothing was left to decide.

    A job then ends the call. A call that is over is left alone. The call must already be locked.
    """
    return decide_endings(session, [call], cause, now) == 1


def decide_endings(session: Session, calls: Sequence[Call], cause: EndCause, now: datetime) -> int:
    """Decide that calls end; return how many were not ending before.

    A job then ends each of them. The wallet's lock is held meanwhile, so a few statements serve any
    number of calls. The calls must already be locked.
    """
    ending = [call for call in calls if call.end_decided_at is None and not is_over(call)]
    for call in ending:
        call.end_cause, call.end_decided_at, call.tick_at = cause, now, None
        note(session, call, "end_decided", now, cause.code)
    # A permission has no call to end yet. If its call is dialled later, `permission.take_over`
    # stages the job.
    stage_for(session, END_CALL, [call for call in ending if not is_permission(call)])
    return len(ending)


def end_live_calls(session: Session, organization_id: str, cause: EndCause, now: datetime) -> int:
    """Decide that all live calls of an organization end; return how many.

    The wallet must already be locked. Replay: calls that are ending already are not counted.
    """
    return decide_endings(session, lock_live_calls(session, organization_id), cause, now)


def end_manually(
    session: Session,
    organization_id: str,
    call_id: str,
    *,
    operator: Operator,
    now: datetime,
) -> bool:
    """End a call for an operator; return False if it was already ending or over.

    Raises: CallNotFound.
    """
    call, _ = call_and_wallet(session, organization_id, call_id)
    decided = decide_ending(session, call, EndCause.OPERATOR, now)
    if decided:
        subject = f"{organization_id} {call_id}"
        record_action(session, "call.end", subject, operator=operator, now=now)
    return decided


def begin_round(
    session: Session, organization_id: str, call_id: str, now: datetime
) -> Round | None:
    """Begin the next round of ending a call; return None once the call is over.

    Raises: CallNotFound.
    """
    call = lock_call(session, organization_id, call_id)
    if call is None:
        raise CallNotFound(call_id)
    if is_over(call):
        return None
    call.end_rounds += 1
    if call.end_rounds >= ALERT_ROUND:
        why = f"the call continues after {call.end_rounds - 1} rounds of ending it"
        alert_not_ended(session, call, why, now)
    return Round(
        call.end_rounds,
        call.provider_call_id,
        _twilio_account_sids(session, call),
        call.twilio_call_sid,
        terms_of(session, organization_id).ending_text,
    )


def end_round(
    session: Session,
    organization_id: str,
    call_id: str,
    done: Round,
    *,
    accepted: list[str],
    now: datetime,
) -> float | None:
    """Record a round's accepted orders; return the seconds until the next round.

    `accepted` lists the accepted orders: "say", "end", "twilio". An accepted order does not prove
    that the call ended. Return None if the call is over by now. Raises: CallNotFound.
    """
    call = lock_call(session, organization_id, call_id)
    if call is None:
        raise CallNotFound(call_id)
    if accepted:
        call.end_told_at = call.end_told_at or now
    elif done.always_uses_twilio and not is_over(call):
        alert_not_ended(
            session, call, "neither Vapi nor Twilio accepted the order to end the call", now
        )
    orders = ", ".join(accepted) or "no order accepted"
    note(session, call, "end_told", now, f"round {done.number}: {orders}")
    if is_over(call):
        return None
    if done.number >= ALERT_ROUND:
        return _AFTER_ALERT_SECONDS
    return _AFTER_SPEECH_SECONDS if "say" in accepted else _AFTER_ORDER_SECONDS


def decide_warnings(session: Session, calls: Sequence[Call], now: datetime) -> None:
    """Stage one warning for each call whose credit is nearly used up."""
    for call in calls:
        call.warned_at = now
        note(session, call, "warned", now)
    stage_for(session, WARN_CALL, calls)


def warning_of(session: Session, organization_id: str, call_id: str) -> tuple[str, str] | None:
    """Return the provider's call id and the warning text; None if it is too late.

    It is too late once the call is over or its end is decided. Return None also if the provider's
    id is unknown.
    """
    call = session.get(Call, (organization_id, call_id), populate_existing=True)
    if call is None or call.provider_call_id is None:
        return None
    if billing_state(call) not in CONTINUING_STATES:
        return None
    return call.provider_call_id, terms_of(session, organization_id).warning_text


def _twilio_account_sids(session: Session, call: Call) -> tuple[str, ...]:
    if call.twilio_account_sid is not None:
        return (call.twilio_account_sid,)
    sids = session.scalars(
        select(Brand.twilio_subaccount_sid)
        .where(
            Brand.organization_id == call.organization_id, Brand.twilio_subaccount_sid.is_not(None)
        )
        .order_by(Brand.id)
    )
    return tuple(sid for sid in sids if sid is not None)


def alert_not_ended(session: Session, call: Call, why: str, now: datetime) -> None:
    """Raise an alert for a call that goes on although it should have ended."""
    raise_alert(
        session,
        AlertKind.CALL_NOT_ENDED,
        call.organization_id,
        call.id,
        severity=Severity.CRITICAL,
        details={"why": why, "cause": end_code(call), "provider_call": call.provider_call_id},
        now=now,
    )
