"""end_to_end: webhooks per second until their effect is committed.

- end_to_end: status callbacks of messages, sent through one ingress process. They concern nothing,
  and the ingress stores them as ignored.
- end_to_end_refreshes: payment events that are stored before. Two workers of eight threads are then
  notified of all at once. Each event stages a refresh of its payment in the same commit. The
  refreshes are not run.

The baseline is an actor of Dramatiq's own that does one INCR, on as many processes and threads,
notified of all at once. After each round every webhook must have had its effect exactly once.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack

from benchmarks.empty_actors import COUNTER, QUEUE
from benchmarks.measure import Result, compare, wait
from benchmarks.sender import send_all
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner, make_subaccounts, paypal_event, twilio_callbacks
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
_REFRESHES = """
    SELECT count(*) FROM inbox i JOIN jobs j ON j.cause = i.id AND j.outcome = 'done'
    JOIN job_attempts a ON a.job_id = j.id AND a.attempt = 1 AND a.outcome = 'done'
    JOIN jobs l ON l.cause = j.id AND l.name = 'look_at_payment'
    WHERE i.outcome = 'handled' AND j.attempt = 1
"""
_JOBS = "SELECT array_agg(id ORDER BY id) FROM jobs"


def end_to_end(system: System, rounds: int, seconds: float) -> list[Result]:
    """Measure the whole path, and the workers' part of it, against INCR."""
    count = round(_PER_SECOND * seconds)
    callbacks = twilio_callbacks(
        count, make_subaccounts(system, _SUBACCOUNTS), system.env["PUBLIC_URL"]
    )
    payments = PayPalSigner(system.sandbox["paypal"]).requests(
        [paypal_event("PAYMENT.CAPTURE.PENDING", {"id": f"8VC{n:014d}"}) for n in range(count)]
    )
    notifying, silent = free_ports(2)
    redis = connect(system.redis_url)

    def streamed() -> float:
        system.clear()
        began = time.monotonic()
        send_all(notifying, callbacks, connections=_CONNECTIONS)
        return _rate_until_done(system, count, began, _IGNORED)

    def notified_at_once() -> float:
        system.clear()
        send_all(silent, payments, connections=_CONNECTIONS)
        jobs = [Staged(job, "process_event", "safety") for job in system.ask(_JOBS)]
        began = time.monotonic()
        push(redis, jobs)
        return _rate_until_done(system, count, began, _REFRESHES)

    def incremented() -> float:
        redis.delete(COUNTER)
        jobs = [Staged(f"job_{number}", "count", QUEUE) for number in range(count)]
        began = time.monotonic()
        push(redis, jobs)
        wait(lambda: int(redis.get(COUNTER) or 0) >= count, "the counter", every_seconds=0.01)
        return count / (time.monotonic() - began)

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
        for port, webhooks in ((silent, payments[:1]), (silent, callbacks), (notifying, callbacks)):
            system.clear()
            send_all(port, webhooks[:_SUBACCOUNTS], connections=1)
        wait(lambda: not system.ask(_UNDONE), "the first callbacks")
        return [
            compare(name, "webhooks/s", rounds, value=value, baseline=incremented)
            for name, value in (
                ("end_to_end", streamed),
                ("end_to_end_refreshes", notified_at_once),
            )
        ]


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
