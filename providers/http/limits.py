"""A provider channel: the calls of one class to one account at a provider.

A call asks the gate for admission and reports its outcome to the gate. This module decides which
outcomes count against a provider: lost connections and answers, 5xx, and 429 to our own account. An
error of a customer's account does not count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from base.channels import ProviderChannel

#: A call waits at most this many seconds for its turn. If its turn comes later, the call is refused
#: and its job is postponed.
WAIT_SECONDS_MAX = 1.0
#: Seconds for which an account is held back after a 429 without Retry-After.
HOLD_SECONDS_DEFAULT = 1.0


class Gate(Protocol):
    """Admits calls for all processes together, by rate limits and circuit breakers."""

    def enter(self, channel: ProviderChannel, wait_seconds_max: float) -> tuple[float, str]:
        """Return the seconds to wait before the call, and a ticket. Raises: HeldBack."""

    def leave(
        self, channel: ProviderChannel, ticket: str, outcome: str, hold_seconds: float
    ) -> None:
        """Give the ticket back, with the outcome of the call."""


@dataclass
class Passage:
    """One admitted call. The circuit breaker does not count the outcome "unknown"."""

    is_tenants: bool = False
    outcome: str = "unknown"
    hold_seconds: float = 0.0

    def lost(self) -> None:
        """Record that the provider was not reached or did not answer."""
        self.outcome = "failed"

    def answered(self, status: int, retry_after_seconds: float | None) -> None:
        """Record the provider's answer and the wait that it asked for."""
        failed = status >= 500 or (status == 429 and not self.is_tenants)
        self.outcome = "failed" if failed else "answered"
        if status == 429:
            self.hold_seconds = max(retry_after_seconds or 0.0, HOLD_SECONDS_DEFAULT)
        elif status >= 500:
            self.hold_seconds = retry_after_seconds or 0.0


@dataclass(frozen=True)
class ChannelLimits:
    """A provider channel. Without a gate, every call goes out at once."""

    channel: ProviderChannel
    gate: Gate | None = None
    #: The account belongs to a customer, whose own errors do not count against the provider.
    is_tenants: bool = False

    def of_tenant(self, account: str) -> ChannelLimits:
        """Return the channel of a customer's subaccount, which has its own limits."""
        return replace(self, channel=replace(self.channel, account=account), is_tenants=True)

    @contextmanager
    def passage(self, seconds_left: float) -> Iterator[Passage]:
        """Admit one call, after a short wait for its turn if necessary.

        Raises: HeldBack if the call's turn comes too late, or the circuit breaker is open.
        """
        passage = Passage(self.is_tenants)
        if self.gate is None:
            yield passage
            return
        wait_seconds, ticket = self.gate.enter(
            self.channel, min(WAIT_SECONDS_MAX, seconds_left / 2)
        )
        try:
            time.sleep(wait_seconds)
            yield passage
        finally:
            self.gate.leave(self.channel, ticket, passage.outcome, passage.hold_seconds)
