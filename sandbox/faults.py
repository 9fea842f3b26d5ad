"""Faults that the control plane injects into requests, as they occur in real life.

A fault decides whether and when a request takes effect and what its sender receives. It never
changes the effect itself. The kinds are:

- delay: act after `seconds`, then answer
- hold: wait until the fault is released, then act and answer
- act_then_drop: act, then close the connection without an answer
- act_then_timeout: act, then close the connection without an answer after `seconds`
- drop: close the connection without acting
- status: answer with `status` without acting
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from secrets import SystemRandom, token_hex
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.exchange import ApiRequest, Json

Kind = Literal["delay", "hold", "act_then_drop", "act_then_timeout", "drop", "status"]
_random = SystemRandom()


class Match(BaseModel):
    """The conditions for a fault to apply to a request. All that are set must be true."""

    model_config = ConfigDict(extra="forbid")

    method: str | None = None
    path_contains: str | None = None
    form: dict[str, str] = Field(default_factory=dict)

    def matches(self, request: ApiRequest) -> bool:
        """Return whether the request fulfils the conditions."""
        if self.method is not None and self.method.upper() != request.method:
            return False
        if self.path_contains is not None and self.path_contains not in request.path:
            return False
        return self.form.items() <= request.form().items()


class FaultRequest(BaseModel):
    """A request for a fault. `seconds` is the delay, or the time without an answer."""

    model_config = ConfigDict(extra="forbid")

    provider: Literal["paypal", "twilio", "stripe", "vapi"]
    match: Match = Field(default_factory=Match)
    kind: Kind
    seconds: float = Field(1.0, ge=0, le=3600)
    status: int = Field(503, ge=300, le=599)
    headers: dict[str, str] = Field(default_factory=dict)
    times: int | None = Field(None, ge=1)
    probability: float = Field(1.0, ge=0, le=1)


@dataclass
class HeldRequest:
    """A request that was received and waits for the decision whether it takes effect."""

    #: True: the request takes effect. False: it is dropped as if it had never arrived.
    decision: asyncio.Future[bool]
    effect_done: asyncio.Event


@dataclass
class Fault:
    """An active fault, the number of its hits, and the requests that it holds."""

    id: str
    order: FaultRequest
    hits: int = 0
    held: list[HeldRequest] = field(default_factory=list)

    def hold(self) -> HeldRequest:
        """Hold one more request."""
        held = HeldRequest(asyncio.get_running_loop().create_future(), asyncio.Event())
        self.held.append(held)
        return held

    async def release(self) -> int:
        """Let the held requests take effect, and wait for their effects."""
        held, self.held = self.held, []
        for request in held:
            request.decision.set_result(True)
        for request in held:
            await request.effect_done.wait()
        return len(held)

    def discard(self) -> None:
        """Drop the held requests without effect."""
        held, self.held = self.held, []
        for request in held:
            request.decision.set_result(False)

    def to_dict(self) -> Json:
        """Return the fault as the control plane shows it."""
        shown = {"id": self.id, "hits": self.hits, "held": len(self.held)}
        return shown | self.order.model_dump(mode="json")


class Faults:
    """The faults, oldest first. The first fault that matches a request is applied."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    def add(self, order: FaultRequest) -> Fault:
        """Activate a fault."""
        fault = Fault(f"fault_{token_hex(6)}", order)
        self._faults[fault.id] = fault
        return fault

    def pick(self, request: ApiRequest) -> Fault | None:
        """Return the fault that applies to this request, and count the hit."""
        for fault in self._faults.values():
            order = fault.order
            if order.provider != request.provider or not order.match.matches(request):
                continue
            if order.times is not None and fault.hits >= order.times:
                continue
            if order.probability < 1 and _random.random() >= order.probability:
                continue
            fault.hits += 1
            return fault
        return None

    def get(self, fault_id: str) -> Fault | None:
        """Return a fault, even if its `times` are used up; None if there is none."""
        return self._faults.get(fault_id)

    def all(self) -> list[Fault]:
        """Return every fault, oldest first."""
        return list(self._faults.values())

    def remove(self, fault_id: str) -> bool:
        """Remove a fault and drop the requests that it holds. Return whether it existed."""
        fault = self._faults.pop(fault_id, None)
        if fault is not None:
            fault.discard()
        return fault is not None

    def clear(self) -> None:
        """Remove every fault."""
        for fault_id in list(self._faults):
            self.remove(fault_id)
