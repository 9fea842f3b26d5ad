"""What the demo tells: scenes and their checks, for a person as they happen, or as data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from base.clock import wait_until

#: Longest wait for an effect, in seconds; most take a fraction of one.
_EFFECT_SECONDS = 60


@dataclass
class Check:
    """One thing that was expected, and whether it was so."""

    name: str
    ok: bool
    found: str = ""


@dataclass
class Scene:
    """A step of the story and what was checked in it."""

    title: str
    checks: list[Check] = field(default_factory=list)


class Report:
    """Collects scenes and checks; tells them at once unless it is to be printed as data."""

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._began = time.monotonic()
        self.scenes: list[Scene] = []

    @property
    def checks(self) -> list[Check]:
        """Every check so far."""
        return [check for scene in self.scenes for check in scene.checks]

    @property
    def failed(self) -> int:
        """How many checks did not hold."""
        return sum(not check.ok for check in self.checks)

    def scene(self, title: str) -> None:
        """This function will begin a step of the story."""
        self.scenes.append(Scene(title))
        self._say(f"\n[bold]{len(self.scenes)}. {title}[/bold]")

    def tell(self, line: str) -> None:
        """This function will say what is being done."""
        self._say(f"   [dim]{line}[/dim]")

    def check(self, name: str, found: Any, expected: Any = True) -> None:
        """This function will note whether what was found is what was expected."""
        ok = found == expected
        self._note(Check(name, ok, "" if ok else f"expected {expected!r}, found {found!r}"))

    def eventually(self, name: str, look: Callable[[], Any], expected: Any = True) -> None:
        """Look until what is found is what is expected, or time is up.

        The last look counts: a further one could find what a schedule began meanwhile.
        """
        found: list[Any] = []

        def is_expected() -> bool:
            found[:] = [look()]
            return bool(found[0] == expected)

        wait_until(is_expected, limit_seconds=_EFFECT_SECONDS)
        self.check(name, found[0], expected)

    def end(self) -> str:
        """This function will say the last line: how many checks passed and failed."""
        passed = len(self.checks) - self.failed
        line = f"demo: {passed} checks passed, {self.failed} failed"
        self._say(f"\n[dim]{time.monotonic() - self._began:.1f} s[/dim]")
        if self._console is not None:
            self._console.print(line, highlight=False, markup=False)
        return line

    def data(self) -> dict[str, Any]:
        """This function will give the same as data."""
        return {
            "scenes": [asdict(scene) for scene in self.scenes],
            "passed": len(self.checks) - self.failed,
            "failed": self.failed,
            "seconds": round(time.monotonic() - self._began, 1),
        }

    def _note(self, check: Check) -> None:
        self.scenes[-1].checks.append(check)
        mark = "[green]✓[/green]" if check.ok else "[red]✗[/red]"
        tail = f"  [red]{check.found}[/red]" if check.found else ""
        self._say(f"   {mark} {check.name}{tail}")

    def _say(self, line: str) -> None:
        if self._console is not None:
            self._console.print(line, highlight=False)
