"""Merge a reservation with the provider's call: one call, one hold, one charge.

If a report arrives before the pairing, there are two rows: the reservation and the adopted call.
The adopted row goes on, because it has the meter and the provider's id. The reservation is merged
into it. No ledger entry is rewritten: a charge keeps the key under which it was made.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallOrigin, CallStatus, EndCause, HoldStatus
from base.outcomes import Refused
from base.problems.calls import FOREIGN_NUMBER
from base.problems.wallet import IDEMPOTENCY_CONFLICT
from db.locks import lock_call
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.calls.billing import is_cost_settled
from domain.calls.double_charges import may_be_outgoing
from domain.calls.ending import alert_not_ended, decide_ending
from domain.calls.rows import (
    TALKING,
    call_of_provider,
    has_rate,
    hold_end,
    mark_anomaly,
    merged_ids,
    note,
    rate_of,
    resolve_merged,
    stage_for,
)
from domain.calls.withholding import end_withholding
from domain.jobs.types import REFRESH_CALL
from domain.wallet import holds


class PairedOtherwise(Refused):
    """The reservation or the provider's call is already paired with another one."""

    def __init__(self, call_id: str, provider_call_id: str) -> None:
        super().__init__(
            IDEMPOTENCY_CONFLICT,
            f"{call_id} cannot be paired with {provider_call_id}: one of them has another pairing",
            call=call_id,
        )


def pair(session: Session, reservation: Call, provider_call_id: str, now: datetime) -> Call:
    """Pair a reservation with the provider's call; return the row that goes on.

    If the call was adopted, the reservation is merged into it. If both were charged, nothing is
    merged: an alert is raised, and the reservation is returned. The wallet must already be locked.
    Replay: returns the same row. Raises: PairedOtherwise.
    """
    call = resolve_merged(session, reservation)
    if call.provider_call_id == provider_call_id:
        return call
    adopted = call_of_provider(session, provider_call_id)
    is_paired = call.provider_call_id is not None or call.id != reservation.id
    if is_paired or call.refusal == FOREIGN_NUMBER:
        raise PairedOtherwise(reservation.id, provider_call_id)
    if adopted is None:
        call.provider_call_id = provider_call_id
        session.flush()
        note(session, call, "paired", now, provider_call_id)
        end_withholding(session, call, now)
        return call
    if not may_merge(session, reservation, adopted):
        raise PairedOtherwise(reservation.id, provider_call_id)
    locked = lock_call(session, adopted.organization_id, adopted.id)
    if locked is None or (_has_cost(reservation) and _has_cost(locked)):
        _alert_charged_twice(session, reservation, adopted, now)
        return reservation
    _merge_rows(session, reservation, locked, now)
    end_withholding(session, reservation, now)
    return locked


def may_merge(session: Session, reservation: Call, adopted: Call) -> bool:
    """Return whether a reservation can be merged into a call.

    The call must be adopted, belong to the same organization, and have no other reservation.
    """
    is_ours = adopted.organization_id == reservation.organization_id
    return is_ours and adopted.origin == CallOrigin.ADOPTED and not merged_ids(session, adopted)


def _has_cost(call: Call) -> bool:
    return bool(call.cost_micros)


def _merge_rows(session: Session, reservation: Call, adopted: Call, now: datetime) -> None:
    """Merge two rows of one call: the adopted one goes on, the other points to it."""
    was_charged = _has_cost(adopted)
    if not is_cost_settled(adopted):
        _copy_better_rate(adopted, reservation)
    adopted.appointment_id = adopted.appointment_id or reservation.appointment_id
    reserved_micros = _release_open_hold(session, reservation, now)
    if _has_cost(reservation):
        _apply_reservation_charge(session, reservation, adopted, now)
    else:
        _extend_to_reserved(session, adopted, reserved_micros, now)
    if was_charged:
        _alert_if_price_differs(session, reservation, adopted, now)
    adopted.their_party = adopted.their_party or reservation.their_party
    if reservation.settled_at is None:
        reservation.settled_at, reservation.settled_by = now, "merged"
        reservation.cost_micros = reservation.duration_ms = 0
    reservation.merged_into, reservation.tick_at = adopted.id, None
    session.flush()
    note(session, reservation, "merged", now, f"it is {adopted.id}, the same call at the provider")
    note(session, adopted, "merged", now, f"it was reserved as {reservation.id}")
    for kind in (AlertKind.CALL_UNSETTLED, AlertKind.HOLD_UNANSWERED):
        clear_alerts(session, kind, reservation.organization_id, reservation.id, now=now)


def _copy_better_rate(adopted: Call, reservation: Call) -> None:
    """Give the adopted call the reservation's rate if that fits the call better.

    It fits better if the adopted call has no rate, or if only the reservation names the called
    number. An inbound or web call keeps the rate of its own direction.
    """
    if not may_be_outgoing(adopted):
        return
    if has_rate(adopted) and (adopted.their_party or reservation.their_party is None):
        return
    if has_rate(reservation):
        adopted.rate_route = reservation.rate_route
        adopted.micros_per_minute = reservation.micros_per_minute
        adopted.increment_seconds = reservation.increment_seconds
        adopted.minimum_micros = reservation.minimum_micros


def _release_open_hold(session: Session, call: Call, now: datetime) -> int:
    """Release a call's open hold; return its amount in micros, or 0 if none was open."""
    hold = holds.hold_of_call(session, call.organization_id, call.id)
    if hold is None or hold.status != HoldStatus.OPEN:
        return 0
    reserved_micros = hold.reserved_micros
    holds.release(session, call.organization_id, call_id=call.id, now=now)
    return reserved_micros


def _extend_to_reserved(
    session: Session, adopted: Call, reserved_micros: int, now: datetime
) -> None:
    """Extend a live call's hold to the amount that was reserved for it.

    If the wallet is frozen, the ledger refuses the extension, and the hold stays smaller.
    """
    hold = holds.hold_of_call(session, adopted.organization_id, adopted.id)
    if hold is None or hold.status != HoldStatus.OPEN or adopted.status == CallStatus.ENDED:
        return
    if hold.reserved_micros < reserved_micros:
        holds.extend(
            session,
            adopted.organization_id,
            call_id=adopted.id,
            nth=hold.extensions + 1,
            amount_micros=reserved_micros - hold.reserved_micros,
            expires_at=hold_end(now, rate_of(adopted).seconds_for(reserved_micros)),
            now=now,
        )


def _apply_reservation_charge(
    session: Session, reservation: Call, adopted: Call, now: datetime
) -> None:
    """Settle the adopted call with the reservation's charge.

    A call in progress is ended, even if an operator settled the reservation. An ended call is
    refreshed, because its report arrived before the pairing and was not compared. The refresh
    raises an alert if the charge does not match the call's duration.
    """
    _release_open_hold(session, adopted, now)
    is_talking = adopted.status in TALKING
    adopted.duration_ms, adopted.cost_micros = reservation.duration_ms, reservation.cost_micros
    adopted.settled_at = reservation.settled_at
    # With an operator's settlement, `is_over` would be true and the call would not be ended.
    adopted.settled_by = "api" if is_talking else reservation.settled_by
    adopted.tick_at = adopted.withheld_for = None
    session.flush()
    note(session, adopted, "settled", now, f"charged as {reservation.id}")
    clear_alerts(session, AlertKind.CALL_UNSETTLED, adopted.organization_id, adopted.id, now=now)
    if is_talking:
        alert_not_ended(
            session, adopted, "the call continues, although the company settled it", now
        )
        decide_ending(session, adopted, EndCause.SETTLED, now)
    elif adopted.status == CallStatus.ENDED:
        stage_for(session, REFRESH_CALL, [adopted])


def _alert_charged_twice(session: Session, reservation: Call, adopted: Call, now: datetime) -> None:
    for call in (reservation, adopted):
        mark_anomaly(call, "charged_twice")
    raise_alert(
        session,
        AlertKind.CALL_CHARGED_TWICE,
        adopted.organization_id,
        adopted.id,
        severity=Severity.CRITICAL,
        details={
            "provider_call": adopted.provider_call_id,
            "reservation": reservation.id,
            "reservation_micros": reservation.cost_micros,
            "adopted_micros": adopted.cost_micros,
        },
        now=now,
    )


def _alert_if_price_differs(
    session: Session, reservation: Call, adopted: Call, now: datetime
) -> None:
    """Raise an alert if the reservation's number has another price than was charged.

    This applies only if the adopted call was charged without a number.
    """
    if adopted.their_party is not None or reservation.their_party is None:
        return
    expected_micros = rate_of(reservation).cost_micros(adopted.duration_ms or 0)
    if expected_micros != adopted.cost_micros:
        raise_alert(
            session,
            AlertKind.CALL_DIFFERS,
            adopted.organization_id,
            adopted.id,
            severity=Severity.WARNING,
            details={
                "settled_micros": adopted.cost_micros,
                "said_micros": expected_micros,
                "said_ms": adopted.duration_ms,
            },
            now=now,
        )
