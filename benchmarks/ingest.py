"""ingest: PayPal webhooks per second that one ingress process accepts.

It verifies, stores and answers each one. Every webhook has its own body, transmission ID and
signature. Two kinds are measured:

- ignored: events that concern nothing, which are stored without a job
- changing: events that change something, each of which stages a job

Each kind has two baselines on the same kind of server, with the same requests: an empty Starlette
route, and the usual handler of an application (benchmarks/usual_server.py). After each round, every
answered webhook must be stored as its kind requires.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from benchmarks.measure import Result, measure_in_turns, result_of
from benchmarks.sender import Sent, send_all
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner, changing_event, ignored_event
from local.ports import free_ports

#: Webhooks prepared for each second of a measurement: more than one process can accept.
_PER_SECOND = 12_000
#: Goals by number of connections: the ratio to each baseline.
_GOALS = {
    16: {"empty route": 0.3, "usual handler": 5},
    64: {"empty route": 0.4, "usual handler": 5},
}
#: Maximum share of one core for the sender. Above it, the sender could limit the measured rate.
_BUSY_MAX = 0.95

_IGNORED = """
    SELECT count(*) FROM inbox i WHERE i.source = 'paypal' AND i.outcome = 'ignored'
    AND NOT EXISTS (SELECT FROM jobs j WHERE j.cause = i.id)
"""
_CHANGING = """
    SELECT count(*) FROM inbox i JOIN jobs j ON j.cause = i.id
    WHERE i.source = 'paypal' AND j.name = 'process_event' AND j.kwargs ->> 'event_id' = i.id
"""
_STORED = "SELECT count(*) FROM inbox WHERE source = 'paypal'"


@dataclass(frozen=True)
class Target:
    """A server that stores webhooks, and the query that counts what it must store."""

    port: int
    stored: str

    def rate(
        self, system: System, requests: list[bytes], *, connections: int, seconds: float
    ) -> float:
        """Send webhooks for some seconds and return how many were accepted per second.

        Raises: SystemExit unless every answered webhook is stored.
        """
        system.clear()
        # For the first webhook the server requests the certificate. The measurement does not
        # include it.
        send_all(self.port, requests[:1], connections=1)
        sent = send_all(self.port, requests[1:], connections=connections, seconds=seconds)
        stored = system.ask(self.stored)
        if stored != sent.answered + 1:
            raise SystemExit(f"lost: {stored} stored of {sent.answered + 1} answered")
        return _rate(sent)


def ingest(system: System, rounds: int, seconds: float) -> list[Result]:
    """Measure both kinds against both baselines, with 16 and with 64 connections."""
    signer = PayPalSigner(system.sandbox["paypal"])
    count = round(_PER_SECOND * seconds)
    ignored = signer.requests([ignored_event(number) for number in range(count)])
    changing = signer.requests([changing_event(number) for number in range(count)])
    ours_port, empty_port, usual_port = free_ports(3)

    def empty(connections: int) -> float:
        forever = itertools.cycle(ignored)
        return _rate(send_all(empty_port, forever, connections=connections, seconds=seconds))

    def measures_of(connections: int) -> dict[str, Callable[[], float]]:
        def rate(target: Target, requests: list[bytes]) -> Callable[[], float]:
            return partial(target.rate, system, requests, connections=connections, seconds=seconds)

        return {
            "ignored": rate(Target(ours_port, _IGNORED), ignored),
            "changing": rate(Target(ours_port, _CHANGING), changing),
            "usual handler": rate(Target(usual_port, _STORED), changing),
            "empty route": partial(empty, connections),
        }

    with ExitStack() as stack:
        stack.enter_context(system.ingress(ours_port))
        stack.enter_context(system.baseline_server("empty_server", empty_port))
        stack.enter_context(system.baseline_server("usual_server", usual_port))
        results = []
        for connections, goals in _GOALS.items():
            measured = measure_in_turns(rounds, measures_of(connections))
            results += [
                result_of(
                    f"ingest_{kind}_{connections}",
                    f"webhooks/s; goal: {goal:g}",
                    measured[kind],
                    measured[against],
                    against=against,
                )
                for kind in ("ignored", "changing")
                for against, goal in goals.items()
            ]
        return results


def _rate(sent: Sent) -> float:
    if sent.busy > _BUSY_MAX:
        raise SystemExit(f"the sender was the bottleneck: busy for {sent.busy:.0%} of the time")
    return sent.rate
