"""Circuit breakers, rate limits and held-back accounts, shared through Redis.

This module decides whether a call to a provider may go out now. The caller decides what counts as
a failure. Safety calls always go out. While Redis cannot be reached, bulk calls wait; safety and
money calls go out and are not counted.
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

from base.channels import ProviderChannel
from base.enums import Provider, RequestClass
from base.log import get_logger
from base.outcomes import HeldBack
from base.settings import Settings
from db.redis.client import connect

log = get_logger(__name__)
T = TypeVar("T")

#: Seconds to wait for Redis's response. A longer delay would harm the call more than it helps.
REDIS_SECONDS = 0.2
#: Seconds for which Redis counts as unreachable after an error, so that not every call waits for
#: its timeout.
AWAY_SECONDS = 1.0
#: Longest time that an account is held back, in seconds, even if its provider requests a longer
#: time.
HOLD_SECONDS_MAX = 60.0
#: Seconds after which another call may become the trial. No call takes that long, so the worker of
#: the first trial has died.
TRIAL_SECONDS = 30.0
#: Calls may go out this many seconds ahead of the exact rate, so that two calls at once need not
#: wait.
_BURST_SECONDS = 0.2
#: Range of the seconds that a job waits while another call is the trial or Redis is unreachable.
_RETRY_SECONDS_RANGE = (2.0, 5.0)
#: The jobs that wait for one circuit return at random times within half of the wait, and within at
#: most this many seconds.
_SPREAD_SECONDS_MAX = 30.0

#: The key of the accounts that are held back: a sorted set, by the end of each hold.
HELD = "holdfast:held"


@dataclass(frozen=True)
class CircuitPolicy:
    """When a circuit opens, and for how long."""

    failures: int
    calls: int
    window_seconds: float
    open_seconds: float
    open_seconds_max: float


#: The policy of every circuit. Only tests use another one.
POLICY = CircuitPolicy(
    failures=8, calls=20, window_seconds=60, open_seconds=5, open_seconds_max=300
)
#: Calls per second to one account. PayPal publishes no limit, but requests that clients do not
#: poll. Vapi publishes none. Twilio's limits depend on the account, so they are settings.
_CALLS_PER_SECOND = {
    (Provider.PAYPAL, RequestClass.MONEY): 10.0,
    (Provider.PAYPAL, RequestClass.BULK): 5.0,
    (Provider.VAPI, RequestClass.MONEY): 10.0,
    (Provider.VAPI, RequestClass.BULK): 5.0,
}


def circuit_key(channel: ProviderChannel) -> str:
    """Name the Redis hash of a circuit. All accounts of the class share the circuit."""
    return f"holdfast:circuit:{channel.provider}:{channel.call_class}"


def outcomes_key(channel: ProviderChannel) -> str:
    """Name the Redis list of a circuit's last outcomes."""
    return f"{circuit_key(channel)}:outcomes"


def member_of(channel: ProviderChannel) -> str:
    """Name a channel in the sorted set of channels that are held back."""
    return f"{channel.provider}:{channel.call_class}:{channel.account}"


class Circuits:
    """The circuit breakers and rate limits of all processes. Threads may share it."""

    def __init__(
        self,
        client: redis.Redis,
        policy: CircuitPolicy,
        rates: Mapping[tuple[Provider, RequestClass], float],
    ) -> None:
        self._client = client
        self._policy = policy
        self._rates = rates
        self._enter_script = client.register_script(_read_script("circuit_enter"))
        self._leave_script = client.register_script(_read_script("circuit_leave"))
        self._away_until = 0.0
        self._retry_lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings, policy: CircuitPolicy = POLICY) -> Circuits:
        """Create the circuits of all processes that use this Redis."""
        client = connect(settings.redis_url, timeout_seconds=REDIS_SECONDS)
        return cls(client, policy, rates_of(settings))

    @property
    def client(self) -> redis.Redis:
        """The client of the Redis that stores the circuits."""
        return self._client

    @property
    def window_seconds(self) -> float:
        """Age up to which a failure counts, in seconds."""
        return self._policy.window_seconds

    def close(self) -> None:
        """Close all connections to Redis."""
        self._client.close()

    def enter(self, channel: ProviderChannel, wait_seconds_max: float) -> tuple[float, str]:
        """Admit a call to a provider; return the seconds to wait before it, and a ticket.

        The caller passes the ticket to `leave` after the call, with any outcome. The wait is at
        most `wait_seconds_max`. Raises: HeldBack, but never for a safety call.
        """
        per_second = self._rates.get((channel.provider, channel.call_class))
        arguments: list[str | float] = [
            int(channel.call_class is RequestClass.SAFETY),
            1000 / per_second if per_second else 0,
            _ms(_BURST_SECONDS),
            _ms(wait_seconds_max),
            _ms(HOLD_SECONDS_MAX),
            _ms(self._policy.open_seconds_max),
            _ms(TRIAL_SECONDS),
            secrets.token_hex(8),
            member_of(channel),
        ]
        keys = [circuit_key(channel), f"holdfast:pace:{member_of(channel)}", HELD]
        answer = self._query_redis(lambda: self._enter_script(keys=keys, args=arguments))
        if answer is None:
            if channel.call_class is RequestClass.BULK:
                raise HeldBack("Redis is away, so bulk waits", _retry_seconds())
            return 0.0, ""
        verdict, milliseconds, ticket = answer
        if verdict != b"go":
            raise _held_back_error(channel, verdict.decode(), milliseconds / 1000)
        return milliseconds / 1000, ticket.decode()

    def leave(
        self, channel: ProviderChannel, ticket: str, outcome: str, hold_seconds: float
    ) -> None:
        """Record the outcome of a call: "answered", "failed" or "unknown".

        The account is held back for `hold_seconds`, at most HOLD_SECONDS_MAX, in this class and in
        less urgent ones.
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
            *(member_of(lesser) for lesser in channel.less_urgent()),
        ]
        keys = [circuit_key(channel), outcomes_key(channel), HELD]
        changed = self._query_redis(lambda: self._leave_script(keys=keys, args=arguments))
        if changed:
            log.warning(
                "circuit_changed",
                state=changed.decode(),
                provider=channel.provider,
                call_class=channel.call_class,
            )

    def _query_redis(self, query: Callable[[], T]) -> T | None:
        """Query Redis; return None while it is unreachable.

        After an error, one thread tries Redis again each second, and the others get None at once.
        """
        if not self._away_until:
            return self._run_query(query)
        if time.monotonic() < self._away_until or not self._retry_lock.acquire(blocking=False):
            return None
        try:
            return self._run_query(query)
        finally:
            self._retry_lock.release()

    def _run_query(self, query: Callable[[], T]) -> T | None:
        try:
            answer = query()
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            log.warning("circuits_redis_away", error=str(error))
            return None
        self._away_until = 0.0
        return answer


def rates_of(settings: Settings) -> dict[tuple[Provider, RequestClass], float]:
    """Read the allowed calls per second of each account; safety calls have no limit."""
    return {
        **_CALLS_PER_SECOND,
        (Provider.TWILIO, RequestClass.MONEY): settings.twilio_money_per_second,
        (Provider.TWILIO, RequestClass.BULK): settings.twilio_bulk_per_second,
    }


def _held_back_error(channel: ProviderChannel, verdict: str, seconds: float) -> HeldBack:
    channel_name = f"{channel.provider}, {channel.call_class}"
    if verdict == "trial":
        return HeldBack(f"the circuit is being tried: {channel_name}", _retry_seconds())
    # The random part spreads the jobs that wait for the same instant, so that they do not all call
    # the provider at once.
    spread = random.uniform(0, min(max(1.0, seconds / 2), _SPREAD_SECONDS_MAX))  # noqa: S311
    cause = (
        "the circuit is open"
        if verdict == "open"
        else "the account is held back, or its rate is used up"
    )
    return HeldBack(f"{cause}: {channel_name}", seconds + spread)


def _retry_seconds() -> float:
    return random.uniform(*_RETRY_SECONDS_RANGE)  # noqa: S311  # jitter, not a secret


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@cache
def _read_script(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
