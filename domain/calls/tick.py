"""Tick one wallet's live calls: meter them, extend their holds, warn and end them.

One transaction ticks all calls of a wallet, in a few statements for any number of calls. This
module calls no provider. It stages jobs that warn, end and refresh the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from base.enums import EndCause, HoldStatus
from base.log import get_logger
from db.locks import lock_live_calls, lock_wallet
from db.models import CallHold, Wallet
from db.models.calls import Call
from db.waits import TICK_SECONDS_MAX
from domain.alerts.alerts import AlertKind, Severity, raise_alert
from domain.calls.ending import decide_endings, decide_warnings
from domain.calls.metering import Metered, share_out
from domain.calls.rows import BEGIN_REFRESH_SECONDS, hold_end, note, rate_of, stage_for
from domain.calls.settings import DURATION_SECONDS_MAX, terms_of
from domain.jobs.types import REFRESH_CALL
from domain.wallet import holds
from domain.wallet.freezes import active_freezes

log = get_logger(__name__)


@dataclass(frozen=True)
class TickResult:
    """How many calls one tick over a wallet extended, warned, ended and refreshed."""

    extended: int = 0
    warned: int = 0
    ended: int = 0
    refreshed: int = 0


def tick_debtors_at_once(session: Session, organization_id: str, now: datetime) -> int:
    """Make all calls with lent credit due for a tick now; return how many.

    If the debt limit was lowered, the next tick takes the excess back. The organization must
    already be locked.
    """
    lock_wallet(session, organization_id)
    live = lock_live_calls(session, organization_id)
    debtors = [call for call in live if call.debt_micros and call.tick_at]
    for call in debtors:
        call.tick_at = now
    session.flush()
    return len(debtors)


def due_organizations(session: Session, now: datetime, limit: int) -> list[str]:
    """List organizations that have a due call, the longest due first.

    Reads without a lock. `tick` checks again under the wallet's lock.
    """
    return list(
        session.scalars(
            select(Call.organization_id)
            .where(_is_due(now))
            .group_by(Call.organization_id)
            .order_by(func.min(Call.tick_at))
            .limit(limit)
        )
    )


def _is_due(now: datetime) -> ColumnElement[bool]:
    """Match calls whose tick is due.

    A tick that is further ahead than any wait was set before the clock stepped back, so it is due
    too.
    """
    return or_(Call.tick_at <= now, Call.tick_at > now + timedelta(seconds=TICK_SECONDS_MAX))


def _call_is_due(call: Call, now: datetime) -> bool:
    if call.tick_at is None:
        return False
    return call.tick_at <= now or call.tick_at > now + timedelta(seconds=TICK_SECONDS_MAX)


def tick(session: Session, organization_id: str, now: datetime) -> TickResult:
    """Extend the hold of each live call of a wallet, warn the call, or end it.

    Replay: if no call of the wallet is due, nothing changes.
    """
    wallet = lock_wallet(session, organization_id)
    live = lock_live_calls(session, organization_id)
    if wallet is None or not any(_call_is_due(call, now) for call in live):
        return TickResult()
    metered_calls = {call.id: call for call in live if call.tick_at and call.metered_from}
    terms = terms_of(session, organization_id)
    known_holds = _read_holds(session, organization_id, list(metered_calls))
    is_frozen = bool(active_freezes(session, organization_id, now)[0])
    meters = [_build_meter(call, known_holds.get(call.id), now) for call in metered_calls.values()]
    debt_room_micros = 0 if is_frozen else _debt_room_micros(session, wallet, meters)
    share_out(
        meters,
        terms,
        available_micros=0 if is_frozen else wallet.balance_micros - wallet.held_micros,
        debt_room_micros=debt_room_micros,
        overlent_micros=-debt_room_micros,
    )
    _reserve_first_holds(
        session, wallet, meters, known_holds, step_seconds=terms.step_seconds, now=now
    )
    _extend_holds(
        session, organization_id, meters, known_holds, step_seconds=terms.step_seconds, now=now
    )
    for meter in meters:
        call = metered_calls[meter.call_id]
        if meter.returned_micros:
            note(session, call, "debt_returned", now, f"{meter.returned_micros} micros")
        call.debt_micros = meter.debt_micros
        call.tick_at = now + timedelta(seconds=min(meter.next_seconds, TICK_SECONDS_MAX))
    overdue = [metered_calls[meter.call_id] for meter in meters if meter.past_limit]
    _end_overdue(session, overdue, now)
    cause = EndCause.FROZEN_WALLET if is_frozen else EndCause.INSUFFICIENT_FUNDS
    warned = [meter for meter in meters if meter.warn and not meter.end]
    decide_endings(
        session, [metered_calls[meter.call_id] for meter in meters if meter.end], cause, now
    )
    decide_warnings(session, [metered_calls[meter.call_id] for meter in warned], now)
    refreshed = _refresh_unmetered_calls(
        session, [call for call in live if not call.metered_from], now
    )
    return TickResult(
        extended=sum(meter.extend_micros > 0 for meter in meters),
        warned=len(warned),
        ended=sum(meter.end for meter in meters),
        refreshed=refreshed,
    )


def _end_overdue(session: Session, calls: Sequence[Call], now: datetime) -> None:
    """Decide that calls past their maximum duration end, and raise an alert for each."""
    decide_endings(session, calls, EndCause.MAX_DURATION, now)
    for call in calls:
        began = call.metered_from or now
        raise_alert(
            session,
            AlertKind.CALL_PAST_MAXIMUM,
            call.organization_id,
            call.id,
            severity=Severity.WARNING,
            details={
                "max_duration_seconds": call.max_duration_seconds or DURATION_SECONDS_MAX,
                "talked_seconds": int((now - began).total_seconds()),
                "provider_call": call.provider_call_id,
            },
            now=now,
        )


def _read_holds(session: Session, organization_id: str, ids: list[str]) -> dict[str, CallHold]:
    rows = session.scalars(
        select(CallHold)
        .where(CallHold.organization_id == organization_id, CallHold.call_id.in_(ids))
        .execution_options(populate_existing=True)
    )
    return {row.call_id: row for row in rows}


def _build_meter(call: Call, hold: CallHold | None, now: datetime) -> Metered:
    began = call.metered_from or now
    is_open = hold is not None and hold.status == HoldStatus.OPEN
    return Metered(
        call.id,
        rate_of(call),
        elapsed_seconds=max(0.0, (now - began).total_seconds()),
        hold_micros=hold.reserved_micros if hold is not None and is_open else 0,
        debt_micros=call.debt_micros,
        warned=call.warned_at is not None,
        # A call has at most one hold. A call that never had a hold may still get it.
        can_extend=hold is None or is_open,
        limit_seconds=call.max_duration_seconds or DURATION_SECONDS_MAX,
    )


def _debt_room_micros(session: Session, wallet: Wallet, meters: Sequence[Metered]) -> int:
    """Return the part of the debt limit that is neither used nor lent.

    Credit that was lent to an ended call counts as lent until the call is settled. The result is
    negative if the debt limit was lowered below the used and lent amount.
    """
    if wallet.debt_limit_micros == 0 and not any(meter.debt_micros for meter in meters):
        return 0
    lent = session.scalar(
        select(func.coalesce(func.sum(Call.debt_micros), 0)).where(
            Call.organization_id == wallet.organization_id,
            Call.settled_at.is_(None),
            Call.debt_micros > 0,
        )
    )
    used_micros = min(0, wallet.balance_micros - wallet.held_micros)
    return wallet.debt_limit_micros + used_micros - int(lent or 0)


def _reserve_first_holds(
    session: Session,
    wallet: Wallet,
    meters: Sequence[Metered],
    known_holds: dict[str, CallHold],
    *,
    step_seconds: int,
    now: datetime,
) -> None:
    """Reserve the first hold of calls that began without a hold.

    Until now these calls ran on lent credit, and money has become available since.
    """
    for meter in meters:
        if not meter.extend_micros or meter.call_id in known_holds:
            continue
        outcome = holds.reserve(
            session,
            wallet.organization_id,
            call_id=meter.call_id,
            amount_micros=meter.extend_micros,
            currency=wallet.currency,
            expires_at=hold_end(now, step_seconds),
            now=now,
        )
        if not outcome.ok:
            log.error("call_hold_not_reserved", call=meter.call_id, outcome=outcome.outcome)
            meter.end = True


def _extend_holds(
    session: Session,
    organization_id: str,
    meters: Sequence[Metered],
    known_holds: dict[str, CallHold],
    *,
    step_seconds: int,
    now: datetime,
) -> None:
    extended = [meter for meter in meters if meter.extend_micros and meter.call_id in known_holds]
    if not extended:
        return
    outcomes = holds.extend_many(
        session,
        organization_id,
        [
            holds.Extension(
                meter.call_id, known_holds[meter.call_id].extensions + 1, meter.extend_micros
            )
            for meter in extended
        ],
        expires_at=hold_end(now, step_seconds),
        now=now,
    )
    for meter, outcome in zip(extended, outcomes, strict=True):
        if outcome != "OK":
            # The amounts were computed under the same lock, so the money is available. An extension
            # is refused only if the hold would exceed its limits. The call must then end.
            log.error("hold_not_extended", call=meter.call_id, outcome=outcome)
            meter.end = True


def _refresh_unmetered_calls(session: Session, calls: Sequence[Call], now: datetime) -> int:
    """Stage a refresh of due calls that are not metered yet.

    If Vapi's message that the call began was lost, the refresh starts the metering.
    """
    due = [call for call in calls if _call_is_due(call, now)]
    for call in due:
        call.tick_at = now + timedelta(seconds=BEGIN_REFRESH_SECONDS)
    refreshed = [call for call in due if call.provider_call_id is not None]
    for call in refreshed:
        call.asked_at = now
        note(session, call, "asked", now, "has it begun?")
    stage_for(session, REFRESH_CALL, refreshed)
    return len(refreshed)
