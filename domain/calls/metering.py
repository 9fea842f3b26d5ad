"""Rules of a tick: extend the hold of each live call of a wallet, or end the call.

The hold of a call covers the next increment, and a margin, before that increment begins. The calls
of a wallet share the available money. A call that cannot be covered any longer is ended in time.

This module only computes. domain/calls/tick applies its decisions under the wallet's lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from base.facts import CALL_DURATION_MS_MAX
from domain.calls.rates import Rate
from domain.calls.settings import DURATION_SECONDS_MAX, Terms

#: A call is due this many seconds before it must be extended or ended. Therefore a tick that is
#: this late still acts a whole margin before the hold is used up.
LEAD_SECONDS = 2.0
#: How many seconds past its maximum duration a call is ended.
OVERDUE_SECONDS = 5.0
#: A call is due again after this share of the time until its warning, because other calls spend the
#: same money. The second constant is the shortest such wait, in seconds.
_WARNING_SHARE = 0.25
_CHECK_SECONDS_MIN = 1.0


@dataclass
class Metered:
    """The figures of a live call that a tick uses, and what the tick decides for it."""

    call_id: str
    rate: Rate
    elapsed_seconds: float
    hold_micros: int
    debt_micros: int
    warned: bool
    #: Whether the call has an open hold or may still get its first one. A settled hold is not
    #: extended.
    can_extend: bool = True
    #: The call's own maximum duration, or Vapi's.
    limit_seconds: int = DURATION_SECONDS_MAX
    #: The longest time that may be covered. `share_out` computes it.
    longest_seconds: int = CALL_DURATION_MS_MAX // 1000
    #: What this tick grants: from the available money, and from the debt limit.
    extend_micros: int = 0
    borrow_micros: int = 0
    #: Unused lent credit that this tick takes back.
    returned_micros: int = 0
    warn: bool = False
    end: bool = False
    #: Whether the call ends because it exceeded its maximum duration.
    past_limit: bool = False
    #: Seconds until the call is due again.
    next_seconds: float = 0.0

    @property
    def covered_seconds(self) -> int:
        """Seconds of talk time that the hold and the lent credit pay for."""
        return self.rate.seconds_for(self.hold_micros + self.debt_micros)

    @property
    def left_seconds(self) -> float:
        """Covered seconds that the call has not used yet."""
        return self.covered_seconds - self.elapsed_seconds

    def price_of(self, more_seconds: int) -> int:
        """Return the price of covering more seconds, up to the call's longest time."""
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
        """Take back lent credit that the call has not used; return the amount.

        An increment that has begun counts as used.
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
    """Decide how much each live call of one wallet gets, or that it ends.

    `available_micros` is 0 while the wallet may not spend. The call that is nearest to its end is
    served first. If the money does not cover a step for each call, each gets its share in whole
    increments. A call gets at least one increment if what is left pays for it.

    `overlent_micros` is what the calls were lent beyond the debt limit. It is taken back first.
    """
    for call in calls:
        call.longest_seconds = _longest_seconds(call, terms)
    _take_back(calls, overlent_micros)
    available, debt_room = max(0, available_micros), max(0, debt_room_micros)
    for served, call in enumerate(sorted(calls, key=lambda one: one.left_seconds)):
        sharing = len(calls) - served
        if call.can_extend and _spare_seconds(call, terms) <= 0:
            available -= _cover(call, terms, available, sharing, call.give)
        if _spare_seconds(call, terms) <= 0:
            debt_room -= _cover(call, terms, debt_room, sharing, call.lend)
    for call in calls:
        spare_seconds = _spare_seconds(call, terms)
        overdue_seconds = call.elapsed_seconds - call.limit_seconds - OVERDUE_SECONDS
        is_covered_whole = call.covered_seconds >= call.longest_seconds
        call.past_limit = overdue_seconds >= 0 or (spare_seconds <= 0 and is_covered_whole)
        call.end = call.past_limit or spare_seconds <= 0
        left_over = debt_room + available if call.can_extend else debt_room
        seconds_to_end = spare_seconds + _share_seconds(call, left_over, len(calls))
        warns = terms.warn_before_seconds > 0 and not call.warned and not call.end
        call.warn = warns and seconds_to_end <= terms.warn_before_seconds
        call.next_seconds = max(0.0, min(spare_seconds, -overdue_seconds))
        if warns and not call.warn:
            to_warning = seconds_to_end - terms.warn_before_seconds
            wait_seconds = max(_CHECK_SECONDS_MIN, to_warning * _WARNING_SHARE)
            call.next_seconds = min(call.next_seconds, wait_seconds)


def seconds_to_end_in_time(terms: Terms) -> int:
    """Return the shortest paid time, in seconds, after which a call ends in time.

    With less, the first tick would end the call at once, or too late for the paid time.
    """
    return math.floor(terms.margin_seconds + LEAD_SECONDS) + 1


def first_step_seconds(rate: Rate, terms: Terms) -> int:
    """Return the seconds that a call's first hold covers, in whole increments.

    The first hold lasts until the first tick, even if the organization's steps are shorter.
    """
    return rate.up_to_increment(max(terms.step_seconds, seconds_to_end_in_time(terms)))


def _longest_seconds(call: Metered, terms: Terms) -> int:
    """Return the longest time that may be covered for a call, in seconds.

    The time that ending an overlong call takes is included.
    """
    until_ended = call.limit_seconds + OVERDUE_SECONDS + terms.margin_seconds + LEAD_SECONDS
    return min(math.ceil(until_ended), CALL_DURATION_MS_MAX // 1000)


def _take_back(calls: Sequence[Metered], micros: int) -> None:
    """Take lent credit back, first from the calls with the most time left."""
    for call in sorted(calls, key=lambda one: -one.left_seconds):
        if micros <= 0:
            return
        micros -= call.take_back(micros)


def _spare_seconds(call: Metered, terms: Terms) -> float:
    """Return the seconds after which a call must be extended or ended."""
    return call.left_seconds - terms.margin_seconds - LEAD_SECONDS


def _cover(
    call: Metered, terms: Terms, shared_micros: int, sharing: int, take: Callable[[int], None]
) -> int:
    """Pay a call's next step from money that `sharing` calls share; return its price.

    If the money does not pay for one increment, return 0 and cover nothing.
    """
    # One step is not enough if the tick is late by more than a step, or if a step is shorter than
    # the margin.
    behind_seconds = math.floor(-_spare_seconds(call, terms)) + 1
    step = call.price_of(max(terms.step_seconds, behind_seconds))
    increment = call.price_of(call.rate.increment_seconds)
    if step * sharing <= shared_micros:
        price = step
    elif increment <= shared_micros:
        share = max(increment, shared_micros // sharing)
        more_seconds = _share_seconds(call, min(share, shared_micros), 1)
        price = call.price_of(more_seconds)
    else:
        price = 0
    if price:
        take(price)
    return price


def _share_seconds(call: Metered, shared_micros: int, sharing: int) -> int:
    """Return the additional seconds that a call's share of the money pays for."""
    paid = call.rate.seconds_for(call.hold_micros + call.debt_micros + shared_micros // sharing)
    return max(0, paid - call.covered_seconds)
