"""The demo's report: scenes and checks, shown as they happen or returned as data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from base.clock import wait_until
from local.errors import WaitExpired

#: Longest wait for an effect, in seconds. Most effects take a fraction of a second.
_EFFECT_SECONDS_MAX = 60


@dataclass
class Check:
    """One expectation and whether it was met."""

    name: str
    ok: bool
    found: str = ""


@dataclass
class Scene:
    """A step of the story and its checks."""

    title: str
    checks: list[Check] = field(default_factory=list)


class Report:
    """Collects scenes and checks. With a console, it shows them as they happen."""

    def __init__(
        self, console: Console | None, *, effect_seconds: float = _EFFECT_SECONDS_MAX
    ) -> None:
        self._console = console
        self._effect_seconds = effect_seconds
        self._began = time.monotonic()
        self._expired: list[str] = []
        self.scenes: list[Scene] = []

    @property
    def checks(self) -> list[Check]:
        """Every check so far."""
        return [check for scene in self.scenes for check in scene.checks]

    @property
    def failed(self) -> int:
        """Number of failed checks."""
        return sum(not check.ok for check in self.checks)

    def scene(self, title: str) -> None:
        """Start a step of the story."""
        self.scenes.append(Scene(title))
        self._print(f"\n[bold]{len(self.scenes)}. {title}[/bold]")

    def print_line(self, line: str) -> None:
        """Show one line about the current step."""
        self._print(f"   [dim]{line}[/dim]")

    def check(self, name: str, found: Any, expected: Any = True) -> None:
        """Record whether the found value is the expected one."""
        ok = found == expected
        self._record(Check(name, ok, "" if ok else f"expected {expected!r}, found {found!r}"))

    def eventually(self, name: str, read_value: Callable[[], Any], expected: Any = True) -> None:
        """Call `read_value` until it returns the expected value, or time is up.

        The last value counts. A further call could return a value that a schedule has changed
        meanwhile.
        """
        found: list[Any] = []

        def is_expected() -> bool:
            found[:] = [read_value()]
            return bool(found[0] == expected)

        if not wait_until(is_expected, limit_seconds=self._effect_seconds):
            text = f"expected {expected!r}, found {found[0]!r} after {self._effect_seconds:g} s"
            self._expired.append(f"{name!r} after {self._effect_seconds:g} s")
            self._record(Check(name, False, text))
            return
        self.check(name, found[0], expected)

    def wait_for(self, wait: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition on which the next step depends.

        Raises: WaitExpired, which names the wait and its seconds.
        """
        if not wait_until(condition, limit_seconds=self._effect_seconds):
            raise WaitExpired(wait, self._effect_seconds)

    def end(self) -> str:
        """Show and return the last line: how many checks passed and failed."""
        passed = len(self.checks) - self.failed
        line = f"demo: {passed} checks passed, {self.failed} failed"
        if self._expired:
            line += f"; waits that expired: {', '.join(self._expired)}"
        self._print(f"\n[dim]{time.monotonic() - self._began:.1f} s[/dim]")
        if self._console is not None:
            self._console.print(line, highlight=False, markup=False)
        return line

    def data(self) -> dict[str, Any]:
        """Return scenes, checks and counts as data."""
        return {
            "scenes": [asdict(scene) for scene in self.scenes],
            "passed": len(self.checks) - self.failed,
            "failed": self.failed,
            "seconds": round(time.monotonic() - self._began, 1),
        }

    def _record(self, check: Check) -> None:
        self.scenes[-1].checks.append(check)
        mark = "[green]✓[/green]" if check.ok else "[red]✗[/red]"
        tail = f"  [red]{check.found}[/red]" if check.found else ""
        self._print(f"   {mark} {check.name}{tail}")

    def _print(self, line: str) -> None:
        if self._console is not None:
            self._console.print(line, highlight=False)
