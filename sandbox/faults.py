"""What goes wrong on purpose: late, lost, refused and unanswered requests, each as it is in life.

A fault decides when a request takes effect and what its sender sees; it never changes the effect.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from secrets import SystemRandom, token_hex
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.exchange import Call, Json

Kind = Literal["delay", "hold", "act_then_drop", "act_then_timeout", "drop", "status"]
_random = SystemRandom()


class Match(BaseModel):
    """Which requests a fault strikes: all that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    method: str | None = None
    path_contains: str | None = None
    form: dict[str, str] = Field(default_factory=dict)

    def strikes(self, call: Call) -> bool:
        """This function will tell whether the request is one of those."""
        if self.method is not None and self.method.upper() != call.method:
            return False
        if self.path_contains is not None and self.path_contains not in call.path:
            return False
        return self.form.items() <= call.form().items()


class Order(BaseModel):
    """A fault as it is asked for. `seconds` is how long to delay, or to leave without answer."""

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
class Held:
    """A request that was received and waits for leave to take effect."""

    #: True to take effect, False to vanish as if it had never arrived.
    decision: asyncio.Future[bool]
    landed: asyncio.Event


@dataclass
class Fault:
    """A fault in force, with how often it struck and what it holds back."""

    id: str
    order: Order
    hits: int = 0
    held: list[Held] = field(default_factory=list)

    def hold(self) -> Held:
        """This function will put one more request on hold."""
        held = Held(asyncio.get_running_loop().create_future(), asyncio.Event())
        self.held.append(held)
        return held

    async def release(self) -> int:
        """This function will let the held requests take effect and wait until they have."""
        held, self.held = self.held, []
        for one in held:
            one.decision.set_result(True)
        for one in held:
            await one.landed.wait()
        return len(held)

    def discard(self) -> None:
        """This function will make the held requests vanish without effect."""
        held, self.held = self.held, []
        for one in held:
            one.decision.set_result(False)

    def to_dict(self) -> Json:
        """This function will show the fault as the control plane does."""
        shown = {"id": self.id, "hits": self.hits, "held": len(self.held)}
        return shown | self.order.model_dump(mode="json")


class Faults:
    """The faults in force, oldest first; the first that strikes a request is the one."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    def add(self, order: Order) -> Fault:
        """This function will put a fault in force."""
        fault = Fault(f"fault_{token_hex(6)}", order)
        self._faults[fault.id] = fault
        return fault

    def pick(self, call: Call) -> Fault | None:
        """This function will give the fault that strikes this request, counting the hit."""
        for fault in self._faults.values():
            order = fault.order
            if order.provider != call.provider or not order.match.strikes(call):
                continue
            if order.times is not None and fault.hits >= order.times:
                continue
            if order.probability < 1 and _random.random() >= order.probability:
                continue
            fault.hits += 1
            return fault
        return None

    def get(self, fault_id: str) -> Fault | None:
        """This function will give one fault, if it is in force or has struck out."""
        return self._faults.get(fault_id)

    def all(self) -> list[Fault]:
        """This function will give every fault, oldest first."""
        return list(self._faults.values())

    def remove(self, fault_id: str) -> bool:
        """This function will end a fault; what it still holds vanishes without effect."""
        fault = self._faults.pop(fault_id, None)
        if fault is not None:
            fault.discard()
        return fault is not None

    def clear(self) -> None:
        """This function will end every fault."""
        for fault_id in list(self._faults):
            self.remove(fault_id)
