"""The line to one account at a provider, for calls of one class: asked for leave, told the end.

Every call goes out through it (providers.http). It decides what counts against a provider: lost
connections and answers, 5xx, and 429 to our own account; never what a tenant's account did wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from base.channels import Route

#: A place that comes free within so many seconds is waited for; for a later one the job waits.
WAIT_SECONDS_MAX = 1.0
#: How long an account is held back after a 429 that names no time, in seconds.
HOLD_SECONDS_DEFAULT = 1.0


class Gate(Protocol):
    """Whether a call may go out, as the whole fleet sees it."""

    def enter(self, route: Route, wait_seconds_max: float) -> tuple[float, str]:
        """Gives the seconds to wait first, and a ticket. Raises: HeldBack."""

    def leave(self, route: Route, ticket: str, outcome: str, hold_seconds: float) -> None:
        """Takes the ticket back, and what became of the call."""


@dataclass
class Passage:
    """One call that went out. What is not told of it before its end counts for nothing."""

    is_tenants: bool = False
    outcome: str = "unknown"
    hold_seconds: float = 0.0

    def lost(self) -> None:
        """This function will note that the provider was not reached or did not answer."""
        self.outcome = "failed"

    def answered(self, status: int, retry_after_seconds: float | None) -> None:
        """This function will note the provider's answer, and how long it asked us to stay away."""
        failed = status >= 500 or (status == 429 and not self.is_tenants)
        self.outcome = "failed" if failed else "answered"
        if status == 429:
            self.hold_seconds = max(retry_after_seconds or 0.0, HOLD_SECONDS_DEFAULT)
        elif status >= 500:
            self.hold_seconds = retry_after_seconds or 0.0


@dataclass(frozen=True)
class Line:
    """Who calls whom, and for what. Without a gate every call goes out at once."""

    route: Route
    gate: Gate | None = None
    #: The account is a tenant's, whose own errors say nothing about the provider.
    is_tenants: bool = False

    def of_tenant(self, account: str) -> Line:
        """This function will give the line to a subaccount, which is held back by itself."""
        return replace(self, route=replace(self.route, account=account), is_tenants=True)

    @contextmanager
    def passage(self, seconds_left: float) -> Iterator[Passage]:
        """This function will let one call out, after a short wait for its place if need be.

        Raises: HeldBack when its place comes later than that, or its circuit is open.
        """
        passage = Passage(self.is_tenants)
        if self.gate is None:
            yield passage
            return
        wait, ticket = self.gate.enter(self.route, min(WAIT_SECONDS_MAX, seconds_left / 2))
        try:
            time.sleep(wait)
            yield passage
        finally:
            self.gate.leave(self.route, ticket, passage.outcome, passage.hold_seconds)
