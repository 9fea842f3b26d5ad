"""Read the circuit breakers' states for operators, and close a circuit manually."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from base.channels import CALLED, ProviderChannel
from base.enums import Provider, RequestClass
from base.log import get_logger
from base.operators import Operator
from db.redis.circuits import HELD, circuit_key, member_of, outcomes_key

log = get_logger(__name__)

#: Seconds for which the state shows which operator closed a circuit.
_NOTE_SECONDS = 86_400


@dataclass(frozen=True)
class CircuitState:
    """The current state of one circuit. All instants are of Redis's clock."""

    provider: Provider
    call_class: RequestClass
    #: "closed", "open", or "half-open" if the next call is a trial.
    state: str
    #: Failures within the window; 0 while the circuit is open.
    failures: int
    open_until: datetime | None
    #: How often the circuit has opened since it was last closed.
    openings: int
    #: Accounts that are held back, each with the end of the hold.
    held_back: dict[str, datetime]
    closed_manually: str | None


def read_states(client: redis.Redis, window_seconds: float) -> list[CircuitState]:
    """Read the state of every circuit. Raises: redis.RedisError."""
    channels = [ProviderChannel(provider, "", of) for provider in CALLED for of in RequestClass]
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(HELD, 0, -1, withscores=True)
        for channel in channels:
            pipe.hgetall(circuit_key(channel))
            pipe.lrange(outcomes_key(channel), 0, -1)
            pipe.get(_note_key(channel))
        (seconds, micros), held, *found = pipe.execute()
    now = seconds + micros / 1_000_000
    oldest = (now - window_seconds) * 1000
    states = []
    for channel, circuit, outcomes, note in zip(
        channels, found[::3], found[1::3], found[2::3], strict=True
    ):
        open_until = float(circuit[b"open_until"]) / 1000 if circuit else None
        states.append(
            CircuitState(
                provider=channel.provider,
                call_class=channel.call_class,
                state=_state(open_until, now),
                failures=sum(_failed_since(one, oldest) for one in outcomes),
                open_until=None if open_until is None else _instant(open_until),
                openings=int(circuit.get(b"openings", 0)),
                held_back=_held_back(held, member_of(channel), now),
                closed_manually=note.decode() if note else None,
            )
        )
    return states


def close_circuit(
    client: redis.Redis, provider: Provider, call_class: RequestClass, *, operator: Operator
) -> bool:
    """Close a circuit, and stop holding back accounts in its class.

    The operator and the reason are logged, and shown with the circuit's state for a day. Returns
    False if the circuit was closed and no account was held back. Raises: redis.RedisError.
    """
    channel = ProviderChannel(provider, "", call_class)
    held = _held_back(client.zrange(HELD, 0, -1, withscores=True), member_of(channel), 0)
    with client.pipeline(transaction=True) as pipe:
        pipe.delete(circuit_key(channel))
        pipe.delete(outcomes_key(channel))
        for account in held:
            pipe.zrem(HELD, member_of(ProviderChannel(provider, account, call_class)))
        pipe.set(_note_key(channel), f"{operator.name}: {operator.reason}", ex=_NOTE_SECONDS)
        was_open = bool(pipe.execute()[0])
    log.warning(
        "circuit_closed_manually",
        provider=provider,
        call_class=call_class,
        by=operator.name,
        why=operator.reason,
    )
    return was_open or bool(held)


def _held_back(held: Any, prefix: str, now: float) -> dict[str, datetime]:
    return {
        name.decode().removeprefix(prefix): _instant(until / 1000)
        for name, until in held
        if name.decode().startswith(prefix) and until > now * 1000
    }


def _failed_since(outcome: bytes, oldest_ms: float) -> bool:
    at, _, failed = outcome.partition(b":")
    return failed == b"1" and float(at) > oldest_ms


def _state(open_until: float | None, now: float) -> str:
    if open_until is None:
        return "closed"
    return "open" if open_until > now else "half-open"


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _note_key(channel: ProviderChannel) -> str:
    return f"{circuit_key(channel)}:closed"
