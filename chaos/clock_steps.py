"""Faults of PostgreSQL's clock: it steps and returns after some seconds."""

from __future__ import annotations

import time
from random import Random

from chaos.clock import STEP_SEEN_SECONDS
from chaos.done import Act, Done
from chaos.system import System


def step_clock(seconds: tuple[int, int], *, at_once: bool = False) -> Act:
    """Step PostgreSQL's clock forward or back, and later back to the true time.

    `at_once`: all processes of the server see the step at the same instant, as when a machine's
    clock steps. Otherwise each process sees it within one second.
    """

    def act(system: System, chance: Random) -> Done:
        lasts, step = chance.uniform(3, 8), chance.randint(*seconds) * chance.choice((-1, 1))
        if not system.clock.can_step:
            return Done(f"skipped: {system.clock.missing}", struck=False)
        if system.clock.offset_seconds:
            return Done("the clock is stepped already", struck=False)

        def set_clock(offset_seconds: int) -> None:
            if not at_once:
                system.clock.step(offset_seconds)
                return
            with system.postgres.paused():
                system.clock.step(offset_seconds)
                time.sleep(STEP_SEEN_SECONDS)

        set_clock(step)
        text = f"PostgreSQL's clock steps by {step:+d} s, and back after {lasts:.1f} s"
        return Done(text, lasts, lambda: set_clock(0))

    return act
