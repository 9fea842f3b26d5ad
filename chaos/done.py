"""The result of a fault: its effect, duration, end, and the problems seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from chaos.facts import Problem
from chaos.system import System


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Done:
    """What a fault did. It lasts for `seconds`; then `undo` ends it."""

    text: str
    seconds: float = 0.0
    undo: Callable[[], None] = _nothing
    #: False if the fault had no target. It is then printed and not counted.
    struck: bool = True
    #: Problems seen while the fault lasted.
    problems: tuple[Problem, ...] = ()
    #: Seconds from the 2xx response to each closing event until the wallet's freeze.
    closed_seconds: tuple[float, ...] = ()


Act = Callable[[System, Random], Done]
