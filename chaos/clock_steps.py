"""Faults of PostgreSQL's clock: it steps forward or back, and returns after some seconds."""

from __future__ import annotations

import time
from random import Random

from chaos.clock import SEEN_SECONDS
from chaos.done import Act, Done
from chaos.house import House


def step_clock(seconds: tuple[int, int], *, at_once: bool = False) -> Act:
    """Step PostgreSQL's clock forward or back, and back again.

    `at_once`: for all its processes at the same instant, as a machine's clock steps. Otherwise for
    each of them within a second.
    """

    def act(house: House, chance: Random) -> Done:
        lasts, step = chance.uniform(3, 8), chance.randint(*seconds) * chance.choice((-1, 1))
        if not house.clock.can_step:
            return Done(f"skipped: {house.clock.missing}", struck=False)
        if house.clock.offset_seconds:
            return Done("the clock is stepped already", struck=False)

        def set_clock(offset_seconds: int) -> None:
            if not at_once:
                house.clock.step(offset_seconds)
                return
            with house.postgres.paused():
                house.clock.step(offset_seconds)
                time.sleep(SEEN_SECONDS)

        set_clock(step)
        words = f"PostgreSQL's clock steps by {step:+d} s, and back after {lasts:.1f} s"
        return Done(words, lasts, lambda: set_clock(0))

    return act
