"""Helpers for circuit breaker tests: calls with a given outcome, ended waits."""

from __future__ import annotations

import redis

from base.channels import ProviderChannel
from base.enums import Provider, RequestClass
from db.redis.circuits import HELD, CircuitPolicy, Circuits, circuit_key

POLICY = CircuitPolicy(
    failures=3, calls=6, window_seconds=60.0, open_seconds=100.0, open_seconds_max=350.0
)
SAFETY, MONEY, BULK = (ProviderChannel(Provider.TWILIO, "AC1", one) for one in RequestClass)


def circuits(
    client: redis.Redis, *, policy: CircuitPolicy = POLICY, per_second: float = 1000
) -> Circuits:
    """Make the circuit breakers that one process of the fleet has."""
    rates = {
        (provider, of): per_second
        for provider in Provider
        for of in (RequestClass.MONEY, RequestClass.BULK)
    }
    return Circuits(client, policy, rates)


def call(fleet: Circuits, route: ProviderChannel, outcome: str, hold_seconds: float = 0) -> str:
    """Make one call with this outcome and return its ticket. Raises: HeldBack."""
    _, ticket = fleet.enter(route, 1.0)
    fleet.leave(route, ticket, outcome, hold_seconds)
    return ticket


def open_circuit(fleet: Circuits, route: ProviderChannel) -> None:
    """Let as many calls fail as open the circuit."""
    for _ in range(POLICY.failures):
        call(fleet, route, "failed")


def wait_is_over(client: redis.Redis, route: ProviderChannel) -> None:
    """End an open circuit's wait now."""
    assert client.hexists(circuit_key(route), "open_until")
    client.hset(circuit_key(route), "open_until", 1)


def trial_is_over(client: redis.Redis, route: ProviderChannel) -> None:
    """End a trial's time now."""
    assert client.hexists(circuit_key(route), "trial_until")
    client.hset(circuit_key(route), "trial_until", 1)


def open_for_seconds(client: redis.Redis, route: ProviderChannel) -> float:
    """Return for how many seconds a circuit was opened, from its two instants."""
    opened_at, until = client.hmget(circuit_key(route), "opened_at", "open_until")
    return (int(until) - int(opened_at)) / 1000


def holds_are_over(client: redis.Redis) -> None:
    """End every hold now."""
    for member in client.zrange(HELD, 0, -1):
        client.zadd(HELD, {member: 1})
