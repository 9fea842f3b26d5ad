"""Rate a known call once its provider reports the number that it uses.

A call that was reserved without a number, or that no rate fitted, gets its rate here before it is
settled. A settled call keeps its price.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CallDirection, EndCause
from base.facts import CallFacts
from base.masking import last_digits
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.calls.billing import is_cost_settled
from domain.calls.ending import decide_ending
from domain.calls.rates import RouteRate, find_rate, fits, priced_number, specificity
from domain.calls.rows import TALKING, has_rate, mark_anomaly, note, rate_of


def rate_by_number(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    """Apply the rate of the number that a provider report names.

    A call that gets another rate is marked `re_rated`. Its next tick is due at once and meters it
    by the new rate. If no rate fits, an alert is raised, and a call in progress is ended. Every
    later message then searches for a rate again. If a settled call would have another price, an
    alert is raised.

    The call must already be locked. Replay: a call whose number was seen keeps its rate, even if
    rates have changed since.
    """
    direction = CallDirection(call.direction)
    number = priced_number(direction, our_number=facts.our_number, their_number=facts.their_number)
    if has_rate(call) and (number is None or call.number_seen):
        return
    route_rate = find_rate(session, call.organization_id, direction, number)
    if route_rate is None:
        _alert_unrated_call(session, call, now)
        return
    call.number_seen = number is not None
    if is_cost_settled(call):
        _alert_if_price_differs(session, call, route_rate, now)
    elif number is None or not _has_rate_of_number(call, direction, route_rate, number):
        _apply_rate(session, call, route_rate, now)
    session.flush()


def _has_rate_of_number(
    call: Call, direction: CallDirection, route_rate: RouteRate, number: str
) -> bool:
    """Return whether a call already has its number's rate, as of when it began."""
    route = call.rate_route
    if not has_rate(call) or route is None:
        return False
    if route == route_rate.route:
        return True
    party = call.their_party if direction is CallDirection.OUTBOUND else call.our_party
    if party != last_digits(number) or not fits(route, direction, number):
        return False
    # Changes of rates after the call began do not apply to it. If a rate was removed since, only a
    # less specific route still fits.
    is_newer = route_rate.set_at > call.created_at
    return is_newer or specificity(route_rate.route) < specificity(route)


def _apply_rate(session: Session, call: Call, route_rate: RouteRate, now: datetime) -> None:
    old_rate, call.rate_route = rate_of(call), route_rate.route
    if old_rate == route_rate.rate:
        return
    call.micros_per_minute = route_rate.rate.micros_per_minute
    call.increment_seconds = route_rate.rate.increment_seconds
    call.minimum_micros = route_rate.rate.minimum_micros
    if call.tick_at is not None and call.metered_from is not None:
        call.tick_at = now
    mark_anomaly(call, "re_rated")
    detail = f"{route_rate.route}: {route_rate.rate.micros_per_minute} micros a minute"
    note(session, call, "re_rated", now, f"{detail}, before {old_rate.micros_per_minute}")
    clear_alerts(
        session,
        AlertKind.CALL_UNKNOWN,
        call.organization_id,
        call.provider_call_id or call.id,
        now=now,
    )


def _alert_unrated_call(session: Session, call: Call, now: datetime) -> None:
    """Raise an alert for an unsettled call that no rate fits; end it if in progress."""
    if is_cost_settled(call):
        return
    mark_anomaly(call, "no_rate")
    raise_alert(
        session,
        AlertKind.CALL_UNKNOWN,
        call.organization_id,
        call.provider_call_id or call.id,
        severity=Severity.CRITICAL,
        details={"why": "no rate", "call": call.id, "direction": call.direction},
        now=now,
    )
    if call.status in TALKING:
        decide_ending(session, call, EndCause.NO_RATE, now)


def _alert_if_price_differs(
    session: Session, call: Call, route_rate: RouteRate, now: datetime
) -> None:
    """Raise an alert if a call was charged by another rate than that of its number."""
    duration_ms = call.duration_ms or 0
    expected_micros = route_rate.rate.cost_micros(duration_ms)
    # A cost that does not follow from the call's rate, such as a waived one, cannot be compared.
    if (
        call.cost_micros != rate_of(call).cost_micros(duration_ms)
        or call.cost_micros == expected_micros
    ):
        return
    raise_alert(
        session,
        AlertKind.CALL_DIFFERS,
        call.organization_id,
        call.id,
        severity=Severity.WARNING,
        details={
            "settled_micros": call.cost_micros,
            "said_micros": expected_micros,
            "settled_route": call.rate_route,
            "said_route": route_rate.route,
        },
        now=now,
    )
