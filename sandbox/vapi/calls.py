"""A call at Vapi: what the API shows of it, the switch that ends it, and what befell it.

Its life (life.py) is one task that sleeps until something is due or somebody ends the call.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sandbox.exchange import Json, iso_ms
from sandbox.twilio.calls import TwilioCall

#: What one second of talk costs, in US dollars.
_COST_PER_SECOND = Decimal("0.0015")


@dataclass(frozen=True)
class PhoneNumber:
    """A number at Vapi: what the API shows, and where its legs' changes are told to."""

    shown: Json
    #: As for Twilio's callback(): "" is the ingress, None is nobody.
    leg_callback_url: str | None = None


@dataclass
class LiveCall:
    """One call. Instants named without a unit are monotonic seconds, which tests can compare."""

    shown: Json
    #: How long it may be talked at most, in seconds.
    longest_seconds: float
    #: Where its messages go; blank for the ingress.
    server_url: str = ""
    number: PhoneNumber | None = None
    leg: TwilioCall | None = None
    #: What differs from the behaviour of all calls.
    behaviour: dict[str, Any] = field(default_factory=dict)
    #: Set to end the call; the reason is the first one given.
    hang_up: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    made: float = field(default_factory=time.monotonic)
    began: float | None = None
    ended: float | None = None
    #: The assistant-request and what was made of its answer; None when none was sent.
    decision: Json | None = None
    #: Control messages in the order received, and what was said.
    orders: list[Json] = field(default_factory=list)
    spoken: list[Json] = field(default_factory=list)
    #: Types of the messages that were lost on purpose.
    lost: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether somebody has ended it, though its end may not have been told yet."""
        return self.hang_up.is_set()

    def end(self, reason: str) -> None:
        """This function will hang up. Replay: a call ends once, for the first reason."""
        self.reason = self.reason or reason
        self.hang_up.set()

    async def last(self, seconds: float | None) -> None:
        """This function will wait so long, or until the call is ended; None: for that alone."""
        try:
            async with asyncio.timeout(seconds):
                await self.hang_up.wait()
        except TimeoutError:
            return

    def set_status(self, status: str) -> None:
        """This function will move the call on, with the instants that go with it."""
        now = iso_ms()
        self.shown |= {"status": status, "updatedAt": now}
        if status == "in-progress":
            self.began = time.monotonic()
            self.shown["startedAt"] = now
        if status == "ended":
            self.ended = time.monotonic()
            # Vapi's API speaks of cost as a JSON number; nothing of ours adds these up.
            cost = float(Decimal(str(round(self.seconds(), 3))) * _COST_PER_SECOND)
            self.shown |= {
                "endedAt": now,
                "endedReason": self.reason,
                "cost": cost,
                "costBreakdown": {"vapi": cost, "total": cost},
            }

    def seconds(self) -> float:
        """This function will count the seconds talked so far."""
        if self.began is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.began

    def note_order(self, kind: str, obeyed: bool) -> None:
        """This function will remember a control message."""
        self.orders.append(
            {"type": kind, "obeyed": obeyed, "at": iso_ms(), "received": time.monotonic()}
        )

    def note_speech(self, text: str) -> Json:
        """This function will remember what is being said; `finished` is for who says it to set."""
        speech: Json = {
            "text": text,
            "at": iso_ms(),
            "began": time.monotonic(),
            "finished": None,
        }
        self.spoken.append(speech)
        return speech
