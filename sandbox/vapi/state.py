"""What Vapi remembers: calls that really live, from queued to ended, second by second."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import uuid4

from sandbox.exchange import Json, iso_ms

#: How server messages prove their sender; Vapi leaves the choice to its customer.
Authentication = Literal["bearer", "x-vapi-secret", "none"]
#: What one second of talk costs, in US dollars.
_COST_PER_SECOND = Decimal("0.0015")


@dataclass
class LiveCall:
    """One call: what the API shows of it, and the clock and switch behind that."""

    shown: Json
    #: Set to end the call; the reason is the first one given.
    hang_up: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    #: Monotonic seconds at which the talk began and ended.
    began: float | None = None
    ended: float | None = None

    def end(self, reason: str) -> None:
        """This function will hang up. Replay: a call ends once, for the first reason."""
        self.reason = self.reason or reason
        self.hang_up.set()

    def set_status(self, status: str) -> None:
        """This function will move the call on, with the instants that go with it."""
        now = iso_ms()
        self.shown |= {"status": status, "updatedAt": now}
        if status == "in-progress":
            self.began = time.monotonic()
            self.shown["startedAt"] = now
        if status == "ended":
            self.ended = time.monotonic()
            cost = Decimal(str(round(self.seconds(), 3))) * _COST_PER_SECOND
            # Vapi's API speaks of cost as a JSON number; nothing of ours adds these up.
            self.shown |= {"endedAt": now, "endedReason": self.reason, "cost": float(cost)}

    def seconds(self) -> float:
        """This function will count the seconds talked so far."""
        if self.began is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.began


@dataclass
class VapiState:
    """Vapi's side of the world."""

    calls: dict[str, LiveCall] = field(default_factory=dict)
    authentication: Authentication = "bearer"
    account_id: str = field(default_factory=lambda: str(uuid4()))

    def add_call(
        self, base_url: str, number: str, max_duration_seconds: float, metadata: Json
    ) -> LiveCall:
        """This function will queue a call. The tenant goes where Vapi has room for one:
        assistantOverrides.metadata, since a call has no metadata of its own."""
        call_id = str(uuid4())
        now = iso_ms()
        shown: Json = {
            "id": call_id,
            "orgId": self.account_id,
            "createdAt": now,
            "updatedAt": now,
            "type": "outboundPhoneCall",
            "status": "queued",
            "phoneCallProvider": "twilio",
            "phoneCallProviderId": f"CA{uuid4().hex}",
            "phoneCallTransport": "pstn",
            "customer": {"number": number},
            "assistantOverrides": {
                "maxDurationSeconds": max_duration_seconds,
                "metadata": metadata,
            },
            "monitor": {
                "listenUrl": f"{base_url}/call/{call_id}/listen",
                "controlUrl": f"{base_url}/call/{call_id}/control",
            },
        }
        call = LiveCall(shown)
        self.calls[call_id] = call
        return call


def epoch_ms() -> int:
    """This function will give the present instant in milliseconds, as messages bear it."""
    return int(datetime.now(UTC).timestamp() * 1000)
