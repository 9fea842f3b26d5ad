"""Rates: a price per minute, charged in whole increments, with a minimum per call.

The talk time is rounded up to whole increments, and the price up to whole micros.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from base.enums import CallDirection
from base.operators import Operator
from base.outcomes import Refused
from base.problems.calls import INVALID_RATE
from db.models import Wallet
from db.models.calls import CallRate
from domain.operator_notes import record_action
from domain.wallet.ledger import WalletNotFound

#: The route whose rate applies if no other route fits.
DEFAULT_ROUTE = "default"
#: The allowed billing increments, in seconds.
INCREMENTS_SECONDS = (1, 6, 30, 60)
#: Highest price per minute and highest minimum, in micros. At this price, a call of 12 hours still
#: costs a valid amount.
RATE_MICROS_MAX = 10**12
_ROUTE_PATTERN = re.compile(r"default|(inbound|outbound|web)(:\+[0-9]{1,15})?", re.ASCII)


class InvalidRate(Refused):
    """A rate is out of bounds, or its route is invalid."""

    def __init__(self, why: str) -> None:
        super().__init__(INVALID_RATE, why)


@dataclass(frozen=True)
class Rate:
    """A price per minute, a billing increment in seconds, and a minimum per call."""

    micros_per_minute: int
    increment_seconds: int
    minimum_micros: int = 0

    def cost_micros(self, duration_ms: int) -> int:
        """Return the price of a talk time; 0 if there was none."""
        if duration_ms <= 0:
            return 0
        increments = -(-duration_ms // (1000 * self.increment_seconds))
        price = -(-increments * self.increment_seconds * self.micros_per_minute // 60)
        return max(self.minimum_micros, price)

    def seconds_for(self, amount_micros: int) -> int:
        """Return the longest talk time, in whole increments, that an amount pays for."""
        if amount_micros < self.minimum_micros:
            return 0
        increment_price = self.increment_seconds * self.micros_per_minute
        return max(0, 60 * amount_micros // increment_price) * self.increment_seconds

    def up_to_increment(self, seconds: int) -> int:
        """Round seconds up to whole increments."""
        return -(-seconds // self.increment_seconds) * self.increment_seconds


#: The rate of a call that has none yet. The call is neither metered nor charged.
NO_RATE = Rate(0, 1)


@dataclass(frozen=True)
class RouteRate:
    """The rate of a route, and when it was set."""

    route: str
    rate: Rate
    set_at: datetime


def priced_number(
    direction: CallDirection, *, our_number: str | None, their_number: str | None
) -> str | None:
    """Return the number that determines a call's price.

    This is the called number of an outbound call and our own number of an inbound call. A web call
    has none.
    """
    return {CallDirection.OUTBOUND: their_number, CallDirection.INBOUND: our_number}.get(direction)


def find_rate(
    session: Session, organization_id: str, direction: CallDirection, number: str | None
) -> RouteRate | None:
    """Find the rate of the most specific route that fits; None if none fits.

    `number` includes its plus sign. See `priced_number` for which number it is.
    """
    rows = session.scalars(
        select(CallRate)
        .where(CallRate.organization_id == organization_id)
        .execution_options(populate_existing=True)
    )
    fitting = [row for row in rows if fits(row.route, direction, number)]
    if not fitting:
        return None
    best = max(fitting, key=lambda row: specificity(row.route))
    rate = Rate(best.micros_per_minute, best.increment_seconds, best.minimum_micros)
    return RouteRate(best.route, rate, best.set_at)


def specificity(route: str) -> tuple[bool, int]:
    """Return a sort key: the most specific of several fitting routes applies."""
    # By length alone, the default route would precede a plain "web".
    return route != DEFAULT_ROUTE, len(route)


def fits(route: str, direction: CallDirection, number: str | None) -> bool:
    """Return whether a route applies to a call's direction and number."""
    if route == DEFAULT_ROUTE:
        return True
    route_direction, _, prefix = route.partition(":")
    return route_direction == direction and (number or "").startswith(prefix)


def set_rate(
    session: Session,
    organization_id: str,
    rate: Rate,
    *,
    route: str = DEFAULT_ROUTE,
    operator: Operator,
    now: datetime,
) -> None:
    """Set a route's rate, for calls that begin from now on.

    A route is "default", a direction, or a direction with a number prefix, such as "outbound:+44".
    Replay: the same rate again updates only operator, reason and time. Raises: InvalidRate,
    WalletNotFound.
    """
    _check_rate(rate, route)
    if session.get(Wallet, organization_id) is None:
        raise WalletNotFound(organization_id)
    values = {
        "micros_per_minute": rate.micros_per_minute,
        "increment_seconds": rate.increment_seconds,
        "minimum_micros": rate.minimum_micros,
        "set_by": operator.name,
        "set_why": operator.reason,
        "set_at": now,
    }
    session.execute(
        insert(CallRate)
        .values(organization_id=organization_id, route=route, **values)
        .on_conflict_do_update(index_elements=("organization_id", "route"), set_=values)
    )
    record_action(
        session, "call_rate.set", f"{organization_id} {route}", operator=operator, now=now
    )


def remove_rate(
    session: Session, organization_id: str, route: str, *, operator: Operator, now: datetime
) -> bool:
    """Remove a route's rate; return False if there was none."""
    removed = session.execute(
        delete(CallRate)
        .where(CallRate.organization_id == organization_id, CallRate.route == route)
        .returning(CallRate.route)
    ).one_or_none()
    if removed is not None:
        record_action(
            session, "call_rate.remove", f"{organization_id} {route}", operator=operator, now=now
        )
    return removed is not None


def _check_rate(rate: Rate, route: str) -> None:
    if not _ROUTE_PATTERN.fullmatch(route):
        raise InvalidRate(f"{route!r} is not a route such as default, inbound or outbound:+44")
    if rate.increment_seconds not in INCREMENTS_SECONDS:
        raise InvalidRate(
            f"the increment must be one of {INCREMENTS_SECONDS} s, not {rate.increment_seconds}"
        )
    if not 0 < rate.micros_per_minute <= RATE_MICROS_MAX:
        raise InvalidRate("the price per minute must be above 0 and at most 1,000,000")
    if not 0 <= rate.minimum_micros <= RATE_MICROS_MAX:
        raise InvalidRate("the minimum price must be 0 to 1,000,000")
