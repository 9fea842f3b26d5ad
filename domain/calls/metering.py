"""Rules of a tick: what each live call of a wallet gets now, or that it ends.

Each call's hold covers the increment that begins next, and a margin, before it begins; what is left
is shared out among them, and a call that cannot be covered any more is ended in time. Plain rules;
domain/calls/tick carries them out under the wallet's lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from base.facts import CALL_DURATION_MS_MAX
from domain.calls.rates import Rate
from domain.calls.settings import DURATION_SECONDS_MAX, Terms

#: How many seconds early a call is due. A tick that is late by as much still extends the hold, or
#: ends the call, a whole margin before the hold is used up.
LEAD_SECONDS = 2.0
#: How long after its own maximum duration a call is ended by us, in seconds.
OVERDUE_SECONDS = 5.0
#: Share of the time until its warning after which a call is due again, because other calls spend
#: too; and the shortest such wait, in seconds.
_WARNING_SHARE = 0.25
_LOOK_SECONDS_MIN = 1.0


@dataclass
class Metered:
    """The figures of a live call that a tick uses, and what the tick decides for it."""

    call_id: str
    rate: Rate
    elapsed_seconds: float
    hold_micros: int
    debt_micros: int
    warned: bool
    #: Whether the call has an open hold or may still get one. A settled hold is not extended.
    can_extend: bool = True
    #: Its own maximum duration, or the platform's.
    limit_seconds: int = DURATION_SECONDS_MAX
    #: The longest time that is covered; `share_out` computes it.
    longest_seconds: int = CALL_DURATION_MS_MAX // 1000
    #: What it gets now, out of what is available and out of the debt limit.
    extend_micros: int = 0
    borrow_micros: int = 0
    #: Lent credit that it has not used, and that is taken back now.
    returned_micros: int = 0
    warn: bool = False
    end: bool = False
    #: Whether it ends because it went on past its maximum duration.
    past_limit: bool = False
    #: Seconds until it has to be looked at again.
    next_seconds: float = 0.0

    @property
    def covered_seconds(self) -> int:
        """Seconds of talk that its hold and its lent credit pay for."""
        return self.rate.seconds_for(self.hold_micros + self.debt_micros)

    @property
    def left_seconds(self) -> float:
        """How much of that is left."""
        return self.covered_seconds - self.elapsed_seconds

    def price_of(self, more_seconds: int) -> int:
        """Return the price of covering so many seconds more, up to the call's longest time."""
        longest = self.rate.up_to_increment(self.longest_seconds)
        whole = min(self.covered_seconds + self.rate.up_to_increment(more_seconds), longest)
        return max(0, self.rate.cost_micros(1000 * whole) - self.hold_micros - self.debt_micros)

    def give(self, micros: int) -> None:
        """Add to the call's hold."""
        self.extend_micros += micros
        self.hold_micros += micros

    def lend(self, micros: int) -> None:
        """Lend the call more of the debt limit."""
        self.borrow_micros += micros
        self.debt_micros += micros

    def take_back(self, micros: int) -> int:
        """Take back lent credit that the call has not talked on; return how much was taken.

        The increment that has begun counts as talked.
        """
        talked_micros = self.rate.cost_micros(math.ceil(1000 * self.elapsed_seconds))
        unused_micros = self.debt_micros - max(0, talked_micros - self.hold_micros)
        taken = max(0, min(micros, unused_micros, self.debt_micros))
        self.returned_micros += taken
        self.debt_micros -= taken
        return taken


def share_out(
    calls: Sequence[Metered],
    terms: Terms,
    *,
    available_micros: int,
    debt_room_micros: int,
    overlent_micros: int = 0,
) -> None:
    """Decide for every live call of one wallet what it gets, or that it ends.

    What is available is 0 while the wallet may not spend. The call nearest to its end comes first.
    If there is not enough for a step each, each call gets its share in whole increments, and at
    least one increment while there is any. `overlent_micros` is what the calls were lent beyond the
    debt limit: it is taken back before anything is given.
    """
    for call in calls:
        call.longest_seconds = _longest_seconds(call, terms)
    _take_back(calls, overlent_micros)
    pot, room = max(0, available_micros), max(0, debt_room_micros)
    for place, call in enumerate(sorted(calls, key=lambda one: one.left_seconds)):
        sharing = len(calls) - place
        if call.can_extend and _spare_seconds(call, terms) <= 0:
            pot -= _cover(call, terms, pot, sharing, call.give)
        if _spare_seconds(call, terms) <= 0:
            room -= _cover(call, terms, room, sharing, call.lend)
    for call in calls:
        spare_seconds = _spare_seconds(call, terms)
        overdue_seconds = call.elapsed_seconds - call.limit_seconds - OVERDUE_SECONDS
        is_covered_whole = call.covered_seconds >= call.longest_seconds
        call.past_limit = overdue_seconds >= 0 or (spare_seconds <= 0 and is_covered_whole)
        call.end = call.past_limit or spare_seconds <= 0
        left_over = room + pot if call.can_extend else room
        seconds_to_end = spare_seconds + _share_seconds(call, left_over, len(calls))
        tells = terms.warn_before_seconds > 0 and not call.warned and not call.end
        call.warn = tells and seconds_to_end <= terms.warn_before_seconds
        call.next_seconds = max(0.0, min(spare_seconds, -overdue_seconds))
        if tells and not call.warn:
            to_warning = seconds_to_end - terms.warn_before_seconds
            look = max(_LOOK_SECONDS_MIN, to_warning * _WARNING_SHARE)
            call.next_seconds = min(call.next_seconds, look)


def seconds_to_end_in_time(terms: Terms) -> int:
    """Return the shortest paid time that lets a call start and still end in time.

    With less, the first tick would end the call at once, or too late for what is paid.
    """
    return math.floor(terms.margin_seconds + LEAD_SECONDS) + 1


def first_step_seconds(rate: Rate, terms: Terms) -> int:
    """Return the seconds that a call's first hold covers, in whole increments.

    It lasts until the first tick, even if the steps are shorter.
    """
    return rate.up_to_increment(max(terms.step_seconds, seconds_to_end_in_time(terms)))


def _longest_seconds(call: Metered, terms: Terms) -> int:
    """Return what a call is covered for at most: until it is ended for its maximum duration."""
    until_ended = call.limit_seconds + OVERDUE_SECONDS + terms.margin_seconds + LEAD_SECONDS
    return min(math.ceil(until_ended), CALL_DURATION_MS_MAX // 1000)


def _take_back(calls: Sequence[Metered], micros: int) -> None:
    """Take lent credit back, first from the calls with the most time left."""
    for call in sorted(calls, key=lambda one: -one.left_seconds):
        if micros <= 0:
            return
        micros -= call.take_back(micros)


def _spare_seconds(call: Metered, terms: Terms) -> float:
    """Return how long a call may go on before it must be extended or ended."""
    return call.left_seconds - terms.margin_seconds - LEAD_SECONDS


def _cover(call: Metered, terms: Terms, pot: int, sharing: int, take: Callable[[int], None]) -> int:
    """Cover a step of a call from a pot that `sharing` calls share; return the price."""
    # One step is not enough if the tick is late by more than a step, or if a step is shorter than
    # the margin.
    behind_seconds = math.floor(-_spare_seconds(call, terms)) + 1
    step = call.price_of(max(terms.step_seconds, behind_seconds))
    increment = call.price_of(call.rate.increment_seconds)
    if step * sharing <= pot:
        price = step
    elif increment <= pot:
        share = max(increment, pot // sharing)
        more_seconds = _share_seconds(call, min(share, pot), 1)
        price = call.price_of(more_seconds)
    else:
        price = 0
    if price:
        take(price)
    return price


def _share_seconds(call: Metered, pot: int, sharing: int) -> int:
    """Return the additional seconds that a call's share of a pot pays for."""
    paid = call.rate.seconds_for(call.hold_micros + call.debt_micros + pot // sharing)
    return max(0, paid - call.covered_seconds)
