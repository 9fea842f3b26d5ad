"""A call at Vapi: what the API shows, the event that ends it, and its history.

life.py runs one task per call. The task sleeps until its next step is due or the call is ended.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sandbox.exchange import Json, iso_ms
from sandbox.twilio.calls import TwilioCall

#: Price of one second of talk, in US dollars.
_COST_PER_SECOND = Decimal("0.0015")


@dataclass(frozen=True)
class PhoneNumber:
    """A phone number: what the API shows, and the callback address of its legs."""

    shown: Json
    #: As in Twilio's callback(): "" is the ingress. None means no callbacks.
    leg_callback_url: str | None = None


@dataclass
class LiveCall:
    """One call. Times without a unit are monotonic seconds, which tests can compare."""

    shown: Json
    #: Maximum duration of the talk, in seconds.
    longest_seconds: float
    #: Address for the call's messages; blank is the ingress.
    server_url: str = ""
    number: PhoneNumber | None = None
    leg: TwilioCall | None = None
    #: Settings in which this call differs from the behaviour of all calls.
    behaviour: dict[str, Any] = field(default_factory=dict)
    #: Set to end the call. The first reason given is kept.
    hang_up: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    made: float = field(default_factory=time.monotonic)
    began: float | None = None
    ended: float | None = None
    #: The assistant-request and its outcome. None if no request was sent.
    decision: Json | None = None
    #: Control messages in the order received, and the spoken texts.
    orders: list[Json] = field(default_factory=list)
    spoken: list[Json] = field(default_factory=list)
    #: Types of the messages that were lost on purpose.
    lost: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the call was ended. Its end may not have been reported yet."""
        return self.hang_up.is_set()

    def end(self, reason: str) -> None:
        """Hang up. Replay: a call ends once, for the first reason."""
        self.reason = self.reason or reason
        self.hang_up.set()

    async def last(self, seconds: float | None) -> None:
        """Wait for the given seconds or until the call ends; None waits for the end only."""
        try:
            async with asyncio.timeout(seconds):
                await self.hang_up.wait()
        except TimeoutError:
            return

    def set_status(self, status: str) -> None:
        """Set the status and the times that belong to it."""
        now = iso_ms()
        self.shown |= {"status": status, "updatedAt": now}
        if status == "in-progress":
            self.began = time.monotonic()
            self.shown["startedAt"] = now
        if status == "ended":
            self.ended = time.monotonic()
            # Vapi's API has the cost as a JSON number. The sandbox never adds these floats up.
            cost = float(Decimal(str(round(self.seconds(), 3))) * _COST_PER_SECOND)
            self.shown |= {
                "endedAt": now,
                "endedReason": self.reason,
                "cost": cost,
                "costBreakdown": {"vapi": cost, "total": cost},
            }

    def seconds(self) -> float:
        """Return the seconds of talk so far."""
        if self.began is None:
            return 0.0
        return (self.ended or time.monotonic()) - self.began

    def note_order(self, kind: str, obeyed: bool) -> None:
        """Record a control message."""
        self.orders.append(
            {"type": kind, "obeyed": obeyed, "at": iso_ms(), "received": time.monotonic()}
        )

    def note_speech(self, text: str) -> Json:
        """Record a text that is being spoken. The caller sets `finished` when it is over."""
        speech: Json = {
            "text": text,
            "at": iso_ms(),
            "began": time.monotonic(),
            "finished": None,
        }
        self.spoken.append(speech)
        return speech
