"""What a fault gives: what it did, for how long, how it ends, and what was wrong meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from chaos.facts import Problem
from chaos.house import House


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Done:
    """What a fault did. While `seconds` run it lasts; then `undo` ends it."""

    words: str
    seconds: float = 0.0
    undo: Callable[[], None] = _nothing
    #: False if the fault had no target. It is printed and not counted.
    struck: bool = True
    #: What was seen to be wrong while it lasted.
    problems: tuple[Problem, ...] = ()
    #: Seconds from the 2xx of each closing event to its freeze.
    closed_seconds: tuple[float, ...] = ()


Act = Callable[[House, Random], Done]
