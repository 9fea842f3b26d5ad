"""The rule of automatic top-up: when it may charge, by terms and past decisions.

The rule reads no table and no clock. The order of its checks matters: enough money, then reasons
why no charge is possible, then pending decisions, then the times between charges, then the daily
cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

#: The period whose decisions count against the daily cap.
DAY = timedelta(hours=24)
#: The minimum time between two decisions: a burst of crossings charges once.
GAP = timedelta(seconds=60)
#: The wait after a declined charge. It doubles with each further decline, up to the longest.
BACK_OFF_FIRST = timedelta(hours=1)
BACK_OFF_LONGEST = timedelta(hours=24)
#: How long a decision waits for its charge to begin, before the facts that it is based on are
#: outdated.
DECISION_LIFE = timedelta(hours=1)
#: The wait until the next evaluation if only an external event can change the result.
RECHECK = timedelta(hours=1)


class State(StrEnum):
    """The state of a decision."""

    DECIDED = "decided"
    CHARGED = "charged"
    DECLINED = "declined"
    EXPIRED = "expired"


class Why(StrEnum):
    """Why nothing is charged now, although available money is below the level."""

    CANNOT_CHARGE = "the provider cannot charge"
    FROZEN = "the wallet is frozen"
    PENDING = "a decision is pending"
    BURST = "the last decision was just now"
    BACK_OFF = "the last charge was declined"
    DAY_CAP = "the cap of a day is reached"


@dataclass(frozen=True)
class TopUpTerms:
    """The terms: the level, the amount of one top-up, and the caps for 24 hours."""

    below_micros: int
    amount_micros: int
    day_cap_micros: int
    day_cap_count: int


@dataclass(frozen=True)
class Past:
    """An earlier decision. `micros` is the captured amount, or else the decided one."""

    state: State
    micros: int
    decided_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    #: The charge has begun. Only the provider's result ends the decision, and it does not expire.
    charging: bool = False


@dataclass(frozen=True)
class TopUpCharge:
    """TopUpCharge this amount."""

    micros: int


@dataclass(frozen=True)
class Wait:
    """TopUpCharge nothing now, and evaluate again at `until`."""

    until: datetime
    why: Why


@dataclass(frozen=True)
class Enough:
    """Available money is not below the level."""


Verdict = TopUpCharge | Wait | Enough


def decide_top_up(
    terms: TopUpTerms,
    available_micros: int,
    past: Sequence[Past],
    now: datetime,
    *,
    hindrance: Why | None = None,
) -> Verdict:
    """Decide whether to charge now, and if not, when to evaluate again.

    `past` contains the decisions of the last 24 hours, and of the earlier ones at least the newest
    that ended, in any order. `hindrance` is a reason why no charge is possible, whatever was
    decided before.
    """
    if available_micros >= terms.below_micros:
        return Enough()
    if hindrance is not None:
        return Wait(now + RECHECK, hindrance)
    for one in past:
        if one.state is State.DECIDED and (one.charging or one.expires_at > now):
            return Wait(now + RECHECK if one.charging else one.expires_at, Why.PENDING)
    soonest = max((one.decided_at + GAP for one in past), default=now)
    if soonest > now:
        return Wait(soonest, Why.BURST)
    retry = back_off_ends(past)
    if retry is not None and retry > now:
        return Wait(retry, Why.BACK_OFF)
    room = _room_at(terms, past, now)
    return Wait(room, Why.DAY_CAP) if room > now else TopUpCharge(terms.amount_micros)


def back_off_ends(past: Sequence[Past]) -> datetime | None:
    """Return when a charge may be tried again after the latest declines.

    Return None if the newest decision that the provider ended was charged, or if there is none. An
    expired decision does not count, because the provider was never called.
    """
    declined = 0
    ended_at: datetime | None = None
    for one in sorted(past, key=lambda one: one.ended_at or one.decided_at, reverse=True):
        if one.state is State.CHARGED:
            break
        if one.state is State.DECLINED:
            declined += 1
            ended_at = ended_at or one.ended_at
    if ended_at is None:
        return None
    # Bounded before it is doubled, because no timedelta can hold an hour doubled a hundred times.
    doubled: int = 2 ** min(declined - 1, 10)
    return ended_at + min(BACK_OFF_FIRST * doubled, BACK_OFF_LONGEST)


def _room_at(terms: TopUpTerms, past: Sequence[Past], now: datetime) -> datetime:
    """Return when the daily caps allow one more charge: `now` if they already do."""
    counted = sorted(
        (one.decided_at, one.micros)
        for one in past
        if one.state in (State.DECIDED, State.CHARGED) and one.decided_at > now - DAY
    )
    left = sum(micros for _, micros in counted)
    at = now
    for index, (decided_at, micros) in enumerate(counted):
        room = terms.day_cap_micros - left >= terms.amount_micros
        if room and len(counted) - index < terms.day_cap_count:
            break
        left -= micros
        at = decided_at + DAY
    return at
