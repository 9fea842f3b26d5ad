"""How providers fare, as the whole fleet sees it in Redis: circuits, rates, who is held back.

It decides whether a call may go out now, and never what a failure means. A safety call is always
let out. While Redis is away bulk waits, and safety and money go on without being counted.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import redis

from base.channels import CALLED, Route
from base.enums import CallClass, Provider
from base.log import get_logger
from base.outcomes import HeldBack
from base.settings import Settings
from db.redis.client import connect

log = get_logger(__name__)
T = TypeVar("T")

#: Seconds that Redis has to answer in: a call to a provider takes longer than it is worth.
REDIS_SECONDS = 0.2
#: Seconds for which it is remembered that Redis was away, so that no call waits to find it out.
AWAY_SECONDS = 1.0
#: Seconds that an account is held back for at most, whatever its provider asks.
HOLD_SECONDS_MAX = 60.0
#: Seconds after which a trial whose worker died is given to another; no call takes so long.
TRIAL_SECONDS = 30.0
#: Calls may come this many seconds ahead of the exact rate, so that two at once need not wait.
_BURST_SECONDS = 0.2
#: Seconds that a job waits for while somebody else tries the provider, or while Redis is away.
_LOOK_AGAIN_SECONDS = (2.0, 5.0)
#: Jobs that waited for one circuit come back over half of the wait, or so many seconds at most.
_SPREAD_SECONDS_MAX = 30.0

#: Accounts that are held back, by the end of it.
HELD = "holdfast:held"


@dataclass(frozen=True)
class Policy:
    """When a circuit opens, and for how long."""

    failures: int
    calls: int
    window_seconds: float
    open_seconds: float
    open_seconds_max: float


def circuit_key(route: Route) -> str:
    """This function will name the hash that a circuit is kept in."""
    return f"holdfast:circuit:{route.provider}:{route.call_class}"


def outcomes_key(route: Route) -> str:
    """This function will name the list of a circuit's last outcomes."""
    return f"{circuit_key(route)}:outcomes"


def member_of(route: Route) -> str:
    """This function will name a route among those that are held back."""
    return f"{route.provider}:{route.call_class}:{route.account}"


class Circuits:
    """The circuits of the fleet; safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        policy: Policy,
        rates: Mapping[tuple[Provider, CallClass], float],
    ) -> None:
        self._client = client
        self._policy = policy
        self._rates = rates
        self._enter = client.register_script(_script("circuit_enter"))
        self._leave = client.register_script(_script("circuit_leave"))
        self._away_until = 0.0
        self._looking = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Circuits:
        """This function will make the circuits of the fleet that shares this Redis."""
        policy = Policy(
            settings.circuit_failures,
            settings.circuit_calls,
            settings.circuit_window_seconds,
            settings.circuit_open_seconds,
            settings.circuit_open_seconds_max,
        )
        client = connect(settings.redis_url, timeout_seconds=REDIS_SECONDS)
        return cls(client, policy, rates_of(settings))

    @property
    def client(self) -> redis.Redis:
        """The client whose Redis the circuits are in."""
        return self._client

    @property
    def window_seconds(self) -> float:
        """How long ago a failure that counts may have been."""
        return self._policy.window_seconds

    def close(self) -> None:
        """This function will close the connections that stand."""
        self._client.close()

    def enter(self, route: Route, wait_seconds_max: float) -> tuple[float, str]:
        """This function will let a call out: gives how many seconds to wait first, and a ticket.

        Give the ticket back to `leave`, whatever became of the call. Raises: HeldBack, never for a
        safety call.
        """
        per_second = self._rates.get((route.provider, route.call_class))
        arguments: list[str | float] = [
            int(route.call_class is CallClass.SAFETY),
            1000 / per_second if per_second else 0,
            _ms(_BURST_SECONDS),
            _ms(wait_seconds_max),
            _ms(HOLD_SECONDS_MAX),
            _ms(self._policy.open_seconds_max),
            _ms(TRIAL_SECONDS),
            secrets.token_hex(8),
            member_of(route),
        ]
        keys = [circuit_key(route), f"holdfast:pace:{member_of(route)}", HELD]
        answer = self._ask(lambda: self._enter(keys=keys, args=arguments))
        if answer is None:
            if route.call_class is CallClass.BULK:
                raise HeldBack("Redis is away, so bulk waits", _look_again_seconds())
            return 0.0, ""
        verdict, milliseconds, ticket = answer
        if verdict != b"go":
            raise _held_back(route, verdict.decode(), milliseconds / 1000)
        return milliseconds / 1000, ticket.decode()

    def leave(self, route: Route, ticket: str, outcome: str, hold_seconds: float) -> None:
        """This function will say what became of a call: "answered", "failed" or "unknown".

        Units: `hold_seconds` for which the account, in this class and less urgent ones, is held
        back; at most HOLD_SECONDS_MAX.
        """
        policy = self._policy
        arguments: list[str | int] = [
            outcome,
            ticket,
            policy.failures,
            policy.calls,
            _ms(policy.window_seconds),
            _ms(policy.open_seconds),
            _ms(policy.open_seconds_max),
            _ms(min(hold_seconds, HOLD_SECONDS_MAX)),
            *(member_of(one) for one in route.less_urgent()),
        ]
        keys = [circuit_key(route), outcomes_key(route), HELD]
        changed = self._ask(lambda: self._leave(keys=keys, args=arguments))
        if changed:
            log.warning(
                f"circuit {changed.decode()}",
                provider=route.provider,
                call_class=route.call_class,
            )

    def _ask(self, question: Callable[[], T]) -> T | None:
        """Redis's answer, or None while it is away; then one thread a second looks for it."""
        if not self._away_until:
            return self._answer_of(question)
        if time.monotonic() < self._away_until or not self._looking.acquire(blocking=False):
            return None
        try:
            return self._answer_of(question)
        finally:
            self._looking.release()

    def _answer_of(self, question: Callable[[], T]) -> T | None:
        try:
            answer = question()
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            log.warning("circuits go on without Redis", error=str(error))
            return None
        self._away_until = 0.0
        return answer


def rates_of(settings: Settings) -> dict[tuple[Provider, CallClass], float]:
    """This function will read the calls a second that each account may make; safety has none."""
    return {
        (provider, of): getattr(settings, f"{provider}_{of}_per_second")
        for provider in CALLED
        for of in (CallClass.MONEY, CallClass.BULK)
    }


def _held_back(route: Route, verdict: str, seconds: float) -> HeldBack:
    whom = f"{route.provider}, {route.call_class}"
    if verdict == "trial":
        return HeldBack(f"the circuit is being tried: {whom}", _look_again_seconds())
    # Spread, so that those who waited for the same instant do not all come at it.
    spread = random.uniform(0, min(max(1.0, seconds / 2), _SPREAD_SECONDS_MAX))  # noqa: S311
    said = "the circuit is open" if verdict == "open" else "held back by its rate"
    return HeldBack(f"{said}: {whom}", seconds + spread)


def _look_again_seconds() -> float:
    return random.uniform(*_LOOK_AGAIN_SECONDS)  # noqa: S311  # jitter, not a secret


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@cache
def _script(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
