"""A call at Vapi: what the API shows, the event that ends it, and its history.

life.py runs one task per call. The task sleeps until its next step is due or the call is ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sandbox.exchange import Json, iso_ms
from sandbox.store import epoch_from_monotonic, monotonic_from_epoch
from sandbox.twilio.calls import TwilioCall

#: Time limit of the response to an assistant-request, in seconds.
ANSWER_SECONDS = 7.5

#: Price of one second of talk, in US dollars.
_COST_PER_SECOND = Decimal("0.0015")
#: Fields of a call that a restart keeps as they are, and its monotonic times.
_KEPT_FIELDS = (
    *("shown", "longest_seconds", "server_url", "behaviour", "reason", "ended_after_seconds"),
    *("decision", "orders", "spoken", "lost"),
)
_TIME_FIELDS = ("made", "began", "ended")


@dataclass(frozen=True)
class PhoneNumber:
    """A phone number: what the API shows, and the callback address of its legs."""

    shown: Json
    #: As in Twilio's callback(): "" is the ingress. None means no callbacks.
    leg_callback_url: str | None = None


@dataclass(frozen=True)
class Plan:
    """How a call proceeds. Times are in seconds.

    If `talk_seconds` is None, the call continues until it is ended from outside or reaches its
    maximum duration.
    """

    queued_seconds: float = 0.05
    ring_seconds: float = 0.1
    talk_seconds: float | None = None
    answered: bool = True
    report: bool = True
    report_after_seconds: float = 0.1
    answer_limit_seconds: float = ANSWER_SECONDS
    deliver: bool = True


def _ignore_change() -> None:
    pass


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
    plan: Plan = field(default_factory=Plan)
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
    #: Reports a change to the shelf. A change after a lookup by ID needs no report.
    changed: Callable[[], None] = _ignore_change
    #: Seconds of talk before the sandbox was restarted.
    seconds_before: float = 0
    #: Seconds of talk after which the call ended, if it ended while the sandbox was stopped.
    ended_after_seconds: float | None = None

    @property
    def over(self) -> bool:
        """Whether the call was ended. Its end may not have been reported yet."""
        return self.hang_up.is_set()

    def end(self, reason: str, *, after_seconds: float | None = None) -> None:
        """Hang up. Replay: a call ends once, for the first reason.

        If the talk had lasted `after_seconds` before a restart, the call ended at that moment.
        """
        if self.over:
            return
        self.reason = reason
        if after_seconds is not None and after_seconds < self.seconds_before:
            self.ended_after_seconds = after_seconds
        self.hang_up.set()
        self.changed()

    async def wait_until_end(self, seconds: float | None) -> None:
        """Wait until the call ends, for at most `seconds`; None means without a limit."""
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
            now = iso_ms(self._set_end())
            # Vapi's API has the cost as a JSON number. The sandbox never adds these floats up.
            cost = float(Decimal(str(round(self.seconds(), 3))) * _COST_PER_SECOND)
            self.shown |= {
                "endedAt": now,
                "endedReason": self.reason,
                "cost": cost,
                "costBreakdown": {"vapi": cost, "total": cost},
            }
        self.changed()

    def _set_end(self) -> datetime:
        now = self.ended = time.monotonic()
        if self.began is not None and self.ended_after_seconds is not None:
            self.ended = self.began + self.ended_after_seconds
        return datetime.now(UTC) - timedelta(seconds=now - self.ended)

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
        self.changed()

    def note_speech(self, text: str) -> Json:
        """Record a text that is being spoken. The caller sets `finished` when it is over."""
        speech: Json = {
            "text": text,
            "at": iso_ms(),
            "began": time.monotonic(),
            "finished": None,
        }
        self.spoken.append(speech)
        self.changed()
        return speech


def pack_call(call: LiveCall) -> Json:
    """Return the fields that a restart keeps of a call, without its number and leg."""
    packed: Json = {name: getattr(call, name) for name in _KEPT_FIELDS}
    times = {f"{name}_at": epoch_from_monotonic(getattr(call, name)) for name in _TIME_FIELDS}
    return packed | times | {"plan": asdict(call.plan), "over": call.over}


def unpack_call(packed: Json, numbers: Mapping[str, PhoneNumber]) -> LiveCall:
    """Rebuild a call from its stored fields, without its leg."""
    times: Json = {name: monotonic_from_epoch(packed.pop(f"{name}_at")) for name in _TIME_FIELDS}
    over, plan = packed.pop("over"), Plan(**packed.pop("plan"))
    number = numbers.get(packed["shown"].get("phoneNumberId", ""))
    call = LiveCall(**packed, **times, plan=plan, number=number)
    call.seconds_before = call.seconds()
    if over:
        call.hang_up.set()
    return call
