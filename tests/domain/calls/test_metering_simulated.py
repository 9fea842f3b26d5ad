"""Simulated calls on one wallet, with a stepped clock.

A call that ends in time never costs more than its hold and its credit. The wallet never passes its
debt limit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.calls.admission import longest_seconds
from domain.calls.metering import LEAD_SECONDS, Metered, first_step_seconds, share_out
from domain.calls.rates import INCREMENTS_SECONDS, Rate
from domain.calls.settings import Terms

CENT = 10_000


@dataclass
class Life:
    """One call: when it began, when it is over, its hold and its credit."""

    rate: Rate
    began: float
    over: float
    hold: int
    debt: int = 0
    tick_at: float = 0.0
    is_ending: bool = False
    was_warned: bool = False


@dataclass
class Wallet:
    """The ledger's rules for calls, as plain numbers."""

    balance: int
    debt_limit: int
    held: int = 0
    now: float = 0.0
    lives: list[Life] = field(default_factory=list)
    ended: int = 0

    @property
    def available(self) -> int:
        return self.balance - self.held

    @property
    def room(self) -> int:
        return self.debt_limit + min(0, self.available) - sum(one.debt for one in self.lives)

    def admit_call(self, chance: random.Random, terms: Terms) -> None:
        """Admit a call as admission does, only if there is money for its first step."""
        rate = Rate(
            chance.randint(1, 300) * CENT,
            chance.choice(INCREMENTS_SECONDS),
            chance.choice([0, 0, 50 * CENT]),
        )
        seconds = longest_seconds(rate, self.available, terms)
        if seconds is None:
            return
        hold = rate.cost_micros(1000 * min(first_step_seconds(rate, terms), seconds))
        self.held += hold
        over = self.now + chance.choice([chance.uniform(0, 30), chance.uniform(0, 900)])
        self.lives.append(Life(rate, self.now, over, hold, tick_at=self.now))

    def tick(self, chance: random.Random, terms: Terms) -> None:
        """Tick as `ticks.tick` does; a call that is ended obeys within its margin."""
        going = [one for one in self.lives if not one.is_ending]
        meters = [
            Metered(
                str(place),
                one.rate,
                elapsed_seconds=self.now - one.began,
                hold_micros=one.hold,
                debt_micros=one.debt,
                warned=one.was_warned,
            )
            for place, one in enumerate(going)
        ]
        share_out(
            meters, terms, available_micros=self.available, debt_room_micros=max(0, self.room)
        )
        for one, meter in zip(going, meters, strict=True):
            one.hold, one.debt = meter.hold_micros, meter.debt_micros
            self.held += meter.extend_micros
            assert not (meter.warn and one.was_warned)
            one.was_warned |= meter.warn
            one.tick_at = self.now + meter.next_seconds
            if meter.end:
                one.is_ending = True
                one.over = min(one.over, self.now + chance.uniform(0, 1) * terms.margin_seconds)
        assert self.available >= -self.debt_limit and self.room >= 0

    def end(self, one: Life) -> None:
        """Settle as settlement does, by the duration that was talked."""
        cost = one.rate.cost_micros(max(0, round((one.over - one.began) * 1000 - 0.5)))
        assert cost <= one.hold + one.debt, "it cost more than was held for it and lent to it"
        self.lives.remove(one)
        self.held -= one.hold
        self.balance -= cost
        self.ended += one.is_ending
        assert self.available >= -self.debt_limit, "the wallet passed its debt limit"


def live_through(seed: int, terms: Terms, *, cents: int, debt_cents: int) -> Wallet:
    """Simulate calls that begin within ten minutes, each tick late by up to its lead."""
    chance = random.Random(seed)
    wallet = Wallet(cents * CENT, debt_cents * CENT)
    rings = sorted(chance.uniform(0, 600) for _ in range(chance.randint(1, 12)))
    while rings or wallet.lives:
        due = [one.tick_at for one in wallet.lives if not one.is_ending]
        overs = [one.over for one in wallet.lives]
        tick_at = min(due) + chance.uniform(0, LEAD_SECONDS) if due else float("inf")
        wallet.now = max(wallet.now, min([*rings[:1], *overs, tick_at]))
        for one in [one for one in wallet.lives if one.over <= wallet.now]:
            wallet.end(one)
        if rings and rings[0] <= wallet.now:
            rings.pop(0)
            wallet.admit_call(chance, terms)
        if chance.random() < 0.02:
            wallet.balance += chance.randint(1, 500) * CENT
        if tick_at <= wallet.now:
            wallet.tick(chance, terms)
    assert (wallet.held, wallet.available) == (0, wallet.balance)
    return wallet


# This case failed once: a call was admitted for less than its margin and ended too late.
@example(
    seed=17329,
    terms=Terms(step_seconds=31, margin_seconds=14, warn_before_seconds=60),
    cents=393,
    debt_cents=0,
)
@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    terms=st.builds(
        Terms,
        step_seconds=st.integers(1, 120),
        margin_seconds=st.integers(1, 20),
        warn_before_seconds=st.sampled_from([0, 5, 60]),
    ),
    cents=st.integers(0, 5_000),
    debt_cents=st.sampled_from([0, 0, 30, 600]),
)
def test_no_call_costs_more_than_its_hold_and_no_wallet_passes_its_limit(
    seed, terms, cents, debt_cents
):
    live_through(seed, terms, cents=cents, debt_cents=debt_cents)


@pytest.mark.parametrize("debt_cents", [0, 600])
def test_simulated_calls_do_run_out_of_credit(debt_cents):
    # The test above proves nothing unless some calls run out of money
    wallets = [live_through(seed, Terms(), cents=700, debt_cents=debt_cents) for seed in range(30)]
    assert sum(wallet.ended for wallet in wallets) > 20
    # And the debt limit is really used
    assert (min(wallet.balance for wallet in wallets) < 0) == (debt_cents > 0)
