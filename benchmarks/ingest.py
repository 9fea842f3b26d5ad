"""ingest: PayPal webhooks per second that one ingress process accepts.

It verifies, stores and answers each one. Every webhook has its own body, transmission ID and
signature. The baseline is an empty Starlette route on the same kind of server, with the same
requests. After each round, every answered webhook must be in the inbox with its job.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from functools import partial

from benchmarks.measure import Result, compare
from benchmarks.sender import Sent, send_all
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner, paypal_event
from local.ports import free_ports

#: Webhooks prepared for each second of a measurement: more than one process can accept.
_PER_SECOND = 12_000
_CONNECTIONS = (16, 64)
#: An event that is stored and staged in any state of the organization. No worker runs here.
_EVENT_TYPE = "PAYMENT.SALE.PENDING"
#: Maximum share of one core for the sender. Above it, the sender could limit the measured rate.
_BUSY_MAX = 0.95

_STORED = """
    SELECT count(*) FROM inbox i JOIN jobs j ON j.cause = i.id
    WHERE i.source = 'paypal' AND j.name = 'process_event' AND j.kwargs ->> 'event_id' = i.id
"""


def ingest(system: System, rounds: int, seconds: float) -> list[Result]:
    """Measure the ingress against an empty route, with 16 and with 64 connections."""
    signer = PayPalSigner(system.sandbox["paypal"])
    count = round(_PER_SECOND * seconds)
    requests = signer.requests(
        [paypal_event(_EVENT_TYPE, {"id": f"8VC{number:014d}"}) for number in range(count)]
    )
    ours_port, empty_port = free_ports(2)

    def ours(connections: int) -> float:
        system.clear()
        # For the first webhook the ingress requests the certificate. The measurement does not
        # include it.
        sent = send_all(ours_port, requests[:1], connections=1)
        sent = send_all(ours_port, requests[1:], connections=connections, seconds=seconds)
        stored = system.ask(_STORED)
        if stored != sent.answered + 1:
            raise SystemExit(f"lost: {stored} stored of {sent.answered + 1} answered")
        return _rate(sent)

    def empty(connections: int) -> float:
        forever = itertools.cycle(requests)
        return _rate(send_all(empty_port, forever, connections=connections, seconds=seconds))

    with ExitStack() as stack:
        stack.enter_context(system.ingress(ours_port))
        stack.enter_context(system.empty_server(empty_port))
        return [
            compare(
                f"ingest_{connections}",
                "webhooks/s",
                rounds,
                value=partial(ours, connections),
                baseline=partial(empty, connections),
            )
            for connections in _CONNECTIONS
        ]


def _rate(sent: Sent) -> float:
    if sent.busy > _BUSY_MAX:
        raise SystemExit(f"the sender was the bottleneck: busy for {sent.busy:.0%} of the time")
    return sent.rate
