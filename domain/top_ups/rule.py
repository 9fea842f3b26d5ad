"""When automatic top-up may charge: a plain rule over what is agreed and what was decided before.

It knows no table and no clock. Its order is its meaning: enough money ends all, then what hinders,
then what is pending, then how soon, then how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

#: The caps count the decisions of so long a time before.
DAY = timedelta(hours=24)
#: From one decision to the next at least: a burst of crossings charges once.
GAP = timedelta(seconds=60)
#: The wait after a declined charge; it doubles with each that follows, up to the longest.
BACK_OFF_FIRST = timedelta(hours=1)
BACK_OFF_LONGEST = timedelta(hours=24)
#: How long a decision waits for a charge to begin: what it was derived from grows old.
DECISION_LIFE = timedelta(hours=1)
#: How soon it is looked at again where only the world outside can change the answer.
RECHECK = timedelta(hours=1)


class State(StrEnum):
    """What became of a decision."""

    DECIDED = "decided"
    CHARGED = "charged"
    DECLINED = "declined"
    EXPIRED = "expired"


class Why(StrEnum):
    """Why nothing is decided now, although there is less than agreed."""

    CANNOT_CHARGE = "the provider cannot charge"
    FROZEN = "the wallet is frozen"
    PENDING = "a decision is pending"
    BURST = "the last decision was just now"
    BACK_OFF = "the last charge was declined"
    DAY_CAP = "the cap of a day is reached"


@dataclass(frozen=True)
class Terms:
    """What was agreed: below which level, how much at once, and how much and often in 24 hours."""

    below_micros: int
    amount_micros: int
    day_cap_micros: int
    day_cap_count: int


@dataclass(frozen=True)
class Past:
    """A decision made before. `micros` is what was captured once charged, else what was decided."""

    state: State
    micros: int
    decided_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    #: The charge has begun: only the provider's word ends it, and it does not expire.
    charging: bool = False


@dataclass(frozen=True)
class Charge:
    """Charge so much."""

    micros: int


@dataclass(frozen=True)
class Wait:
    """Nothing now: look again then."""

    until: datetime
    why: Why


@dataclass(frozen=True)
class Enough:
    """What is available is not below the level."""


Verdict = Charge | Wait | Enough


def decide_top_up(
    terms: Terms,
    available_micros: int,
    past: Sequence[Past],
    now: datetime,
    *,
    hindrance: Why | None = None,
) -> Verdict:
    """This function will decide whether to charge now, and if not, when to look again.

    `past` holds the decisions of the last 24 hours, and of those before at least the newest that
    ended; in any order. `hindrance` is what stands in the way whatever was decided before.
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
    return Wait(room, Why.DAY_CAP) if room > now else Charge(terms.amount_micros)


def back_off_ends(past: Sequence[Past]) -> datetime | None:
    """This function will give when a charge may be tried again after those declined last.

    None where the newest that ended by the provider's word was not declined. A decision that
    expired says nothing: nobody was asked.
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
    # Bounded before it is doubled, since no duration holds an hour doubled a hundred times.
    doubled: int = 2 ** min(declined - 1, 10)
    return ended_at + min(BACK_OFF_FIRST * doubled, BACK_OFF_LONGEST)


def _room_at(terms: Terms, past: Sequence[Past], now: datetime) -> datetime:
    """When the caps leave room for one more: `now` if they do already."""
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
