"""end_to_end: webhooks per second until their effect is committed.

- end_to_end_ignored: status callbacks of messages, sent through one ingress process. They concern
  nothing, and the ingress stores them as ignored.
- end_to_end_changing: events of disputes, sent through one ingress process to two workers of eight
  threads. Each event stages a refresh of its dispute in the same commit. The refreshes are not run.
- end_to_end_changing_stored: the workers' part of it. The events are stored before, and the workers
  are then notified of all at once.

The baseline is an actor of Dramatiq's own that does one INCR, on as many processes and threads,
notified of all at once. After each round every webhook must have had its effect exactly once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from benchmarks.empty_actors import COUNTER, QUEUE
from benchmarks.measure import Result, measure_in_turns, result_of, wait
from benchmarks.sender import send_all
from benchmarks.system import System
from benchmarks.webhooks import (
    PayPalSigner,
    changing_event,
    make_subaccounts,
    twilio_callbacks,
)
from db.jobs.staging import Staged
from db.redis.client import connect, push
from local.ports import free_ports

_PROCESSES, _THREADS = 2, 8
_SUBACCOUNTS = 50
_CONNECTIONS = 32
#: Webhooks of a measurement, for each second of the requested duration.
_PER_SECOND = 2_000

_UNDONE = "SELECT count(*) FROM jobs WHERE name = 'process_event' AND done_at IS NULL"
_IGNORED = "SELECT count(*) FROM inbox WHERE outcome = 'ignored'"
#: Counts the events that had their effect exactly once.
_CHANGED = """
    SELECT count(*) FROM inbox i JOIN jobs j ON j.cause = i.id AND j.outcome = 'done'
    JOIN job_attempts a ON a.job_id = j.id AND a.attempt = 1 AND a.outcome = 'done'
    JOIN jobs l ON l.cause = j.id AND l.name = 'look_at_dispute'
    WHERE i.outcome = 'handled' AND j.attempt = 1
"""
_JOBS = "SELECT array_agg(id ORDER BY id) FROM jobs"


def end_to_end(system: System, rounds: int, seconds: float) -> list[Result]:
    """Measure both kinds of events, and the workers' part, against INCR."""
    count = round(_PER_SECOND * seconds)
    callbacks = twilio_callbacks(
        count, make_subaccounts(system, _SUBACCOUNTS), system.env["PUBLIC_URL"]
    )
    disputes = PayPalSigner(system.sandbox["paypal"]).requests(
        [changing_event(number) for number in range(count)]
    )
    notifying, silent = free_ports(2)
    redis = connect(system.redis_url)

    def streamed(webhooks: list[bytes], effects: str) -> float:
        system.clear()
        began = time.monotonic()
        send_all(notifying, webhooks, connections=_CONNECTIONS)
        return _rate_until_done(system, count, began, effects)

    def notified_at_once() -> float:
        system.clear()
        send_all(silent, disputes, connections=_CONNECTIONS)
        jobs = [Staged(job, "process_event", "safety") for job in system.ask(_JOBS)]
        began = time.monotonic()
        push(redis, jobs)
        return _rate_until_done(system, count, began, _CHANGED)

    def incremented() -> float:
        redis.delete(COUNTER)
        jobs = [Staged(f"job_{number}", "count", QUEUE) for number in range(count)]
        began = time.monotonic()
        push(redis, jobs)
        wait(lambda: int(redis.get(COUNTER) or 0) >= count, "the counter", every_seconds=0.01)
        return count / (time.monotonic() - began)

    measures: dict[str, Callable[[], float]] = {
        "end_to_end_ignored": partial(streamed, callbacks, _IGNORED),
        "end_to_end_changing": partial(streamed, disputes, _CHANGED),
        "end_to_end_changing_stored": notified_at_once,
        "INCR": incremented,
    }
    with ExitStack() as stack:
        stack.enter_context(contextlib.closing(redis))
        # The refreshes go to the billing queue, which no worker serves.
        stack.enter_context(system.workers("safety", processes=_PROCESSES, threads=_THREADS))
        stack.enter_context(system.empty_workers(processes=_PROCESSES, threads=_THREADS))
        stack.enter_context(system.ingress(notifying))
        # This ingress notifies another Redis database, so that its webhooks wait.
        stack.enter_context(system.ingress(silent, REDIS_URL=system.silent_redis_url))
        # Send the first webhooks before the measurement. For the first callback of an account the
        # ingress requests its token from Twilio, for PayPal's first event the certificate.
        for port, webhooks in (
            (silent, disputes[:1]),
            (notifying, disputes),
            (notifying, callbacks),
        ):
            system.clear()
            send_all(port, webhooks[:_SUBACCOUNTS], connections=1)
        wait(lambda: not system.ask(_UNDONE), "the first webhooks")
        measured = measure_in_turns(rounds, measures)
    baselines = measured.pop("INCR")
    return [result_of(name, "webhooks/s", values, baselines) for name, values in measured.items()]


def _rate_until_done(system: System, count: int, began: float, effects: str) -> float:
    """Wait for all effects and return webhooks per second.

    Raises: SystemExit unless each webhook had its effect exactly once.
    """
    wait(lambda: not system.ask(_UNDONE), "the effects", every_seconds=0.02)
    took = time.monotonic() - began
    had = system.ask(effects)
    if had != count:
        raise SystemExit(f"wrong: {had} effects of {count} webhooks")
    return count / took
