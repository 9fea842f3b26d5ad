"""end_to_end: webhooks per second from the socket to their effect committed, two workers of eight
threads.

Each is a signed status callback of another message, over many organizations' subaccounts; its
effect is the event handled and the job finished, in one commit, and needs no provider. Measured
twice: streamed through one ingress process, and by the workers alone, when all were accepted before
and are rung at once. The baseline of both is an actor of Dramatiq's own that does one INCR, on as
many processes and threads, rung at once.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack

from benchmarks.empty_actors import COUNTER, QUEUE
from benchmarks.house import House, free_port
from benchmarks.measure import Result, compare, wait
from benchmarks.sender import send_all
from benchmarks.webhooks import make_subaccounts, twilio_callbacks
from db.jobs import Staged
from db.ring import connect, push

_PROCESSES, _THREADS = 2, 8
_SUBACCOUNTS = 50
_CONNECTIONS = 32
#: Webhooks for each second of a measurement asked for.
_PER_SECOND = 2_000

_UNDONE = "SELECT count(*) FROM jobs WHERE done_at IS NULL"
#: Each accepted webhook has had its effect exactly once.
_EFFECTS = """
    SELECT count(*) FROM inbox i JOIN jobs j ON j.cause = i.id AND j.outcome = 'done'
    JOIN job_attempts a ON a.job_id = j.id AND a.attempt = 1 AND a.outcome = 'done'
    WHERE i.handled_at IS NOT NULL AND j.attempt = 1
"""
_BELLS = "SELECT array_agg(id ORDER BY id) FROM jobs"


def end_to_end(house: House, rounds: int, seconds: float) -> list[Result]:
    """This function will measure the whole way, and the workers' part of it, against INCR."""
    count = round(_PER_SECOND * seconds)
    callbacks = twilio_callbacks(
        count, make_subaccounts(house, _SUBACCOUNTS), house.env["PUBLIC_URL"]
    )
    ringing, silent = free_port(), free_port()
    redis = connect(house.redis_url)

    def streamed() -> float:
        house.clear()
        began = time.monotonic()
        send_all(ringing, callbacks, connections=_CONNECTIONS)
        return _rate_until_done(house, count, began)

    def rung_at_once() -> float:
        house.clear()
        send_all(silent, callbacks, connections=_CONNECTIONS)
        bells = [Staged(job, "process_event", "callbacks") for job in house.ask(_BELLS)]
        began = time.monotonic()
        push(redis, bells)
        return _rate_until_done(house, count, began)

    def incremented() -> float:
        redis.delete(COUNTER)
        bells = [Staged(f"job_{number}", "count", QUEUE) for number in range(count)]
        began = time.monotonic()
        push(redis, bells)
        wait(lambda: int(redis.get(COUNTER) or 0) >= count, "the counter", every_seconds=0.01)
        return count / (time.monotonic() - began)

    with ExitStack() as stack:
        stack.enter_context(contextlib.closing(redis))
        stack.enter_context(house.workers("callbacks", processes=_PROCESSES, threads=_THREADS))
        stack.enter_context(house.empty_workers(processes=_PROCESSES, threads=_THREADS))
        stack.enter_context(house.ingress(ringing))
        # Its bells go where nobody listens.
        stack.enter_context(house.ingress(silent, REDIS_URL=house.silent_redis_url))
        # The first callback of an account has its token fetched from Twilio.
        for port in (silent, ringing):
            house.clear()
            send_all(port, callbacks[:_SUBACCOUNTS], connections=1)
        wait(lambda: not house.ask(_UNDONE), "the first callbacks")
        return [
            compare(name, "webhooks/s", rounds, value=value, baseline=incremented)
            for name, value in (("end_to_end", streamed), ("end_to_end_workers", rung_at_once))
        ]


def _rate_until_done(house: House, count: int, began: float) -> float:
    """Raises: SystemExit unless each has had its effect exactly once."""
    wait(lambda: not house.ask(_UNDONE), "the effects", every_seconds=0.02)
    took = time.monotonic() - began
    effects = house.ask(_EFFECTS)
    if effects != count:
        raise SystemExit(f"wrong: {effects} effects of {count} webhooks")
    return count / took
