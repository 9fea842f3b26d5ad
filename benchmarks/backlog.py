"""backlog: callbacks per second of a backlog that is ten minutes old.

The callbacks arrived while every worker was stopped and the relay ran. The workers then continue.
The time is measured until each callback has had its effect and no message is left in the queue,
because newer callbacks would wait behind it.

The baseline is fresh callbacks: a thousand at a time, each thousand processed before the next one
arrives, and none notified twice. In both cases each callback has a job. The ten minutes do not
really pass: every stored instant is moved back in steps, and after each step the relay does what is
due.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode

import redis

from base.ids import new_ids
from benchmarks.measure import Result, compare, wait
from benchmarks.system import System
from db.jobs.staging import Staged
from db.redis.client import EPOCH_KEY, NAMESPACE, connect, push

#: Callbacks of a backlog, unless the caller requests another number.
COUNT = 100_000
_PROCESSES, _THREADS = 2, 8
_QUEUE = "callbacks"
#: Callbacks that arrive together.
_GROUP = 1_000
#: Fresh callbacks of a measurement, as a share of the backlog.
_FRESH_SHARE = 0.1
#: Seconds by which the instants are moved back: the relay's waits, ten minutes in total.
_STEPS_SECONDS = (2, 15, 30, 60, 120, 240, 133)
#: Callbacks per second below which the benchmark gives up, and the shortest time limit in seconds.
_SLOWEST, _LIMIT_SECONDS_MIN = 20, 120

_RECEIVE = """
    SELECT inbox_receive(%(ids)s, array_fill('twilio'::text, ARRAY[%(count)s]), %(names)s,
        array_fill(NULL::text, ARRAY[%(count)s]),
        array_fill('message.status'::text, ARRAY[%(count)s]), %(bodies)s, %(ids)s, %(jobs)s,
        array_fill('callbacks'::text, ARRAY[%(count)s]))
"""
_AGE = """
    UPDATE jobs SET staged_at = staged_at - make_interval(secs => %s),
        due_at = due_at - make_interval(secs => %s), ring_at = ring_at - make_interval(secs => %s)
    WHERE queue = 'callbacks'
"""
#: Prevents that the relay repeats notifications of fresh callbacks if the machine is slow.
_DO_NOT_REPEAT = """
    UPDATE jobs SET ring_at = ring_at + interval '5 minutes'
    WHERE ring_at IS NOT NULL AND queue = 'callbacks'
"""
_IS_NOTIFIED = """
    SELECT NOT EXISTS (
        SELECT FROM jobs WHERE ring_at <= clock_timestamp() AND queue = 'callbacks')
"""
_IS_DONE = """
    SELECT NOT EXISTS (SELECT FROM jobs WHERE ring_at IS NOT NULL AND queue = 'callbacks')
"""
#: Counts the callbacks that had their effect exactly once.
_EFFECTS = """
    SELECT count(*) FROM inbox i JOIN jobs j ON j.cause = i.id AND j.outcome = 'done'
    JOIN job_attempts a ON a.job_id = j.id AND a.attempt = 1 AND a.outcome = 'done'
    WHERE i.outcome = 'ignored' AND j.attempt = 1
"""


def backlog(system: System, rounds: int, seconds: float, *, count: int = COUNT) -> list[Result]:
    """Measure a backlog of `count` callbacks against fresh ones.

    `seconds` has no effect, because the amount is fixed.
    """

    def old(client: redis.Redis) -> float:
        _clear(system, client)
        with _workers_stopped(system):
            for stored in range(0, count, _GROUP):
                push(client, store_callbacks(system, min(_GROUP, count - stored)))
            make_old(system)
            began = time.monotonic()
        _wait_until_done(system, client, count)
        took = time.monotonic() - began
        check_effects(system, count)
        return count / took

    def fresh(client: redis.Redis) -> float:
        _clear(system, client)
        took, stored = 0.0, 0
        while stored < count * _FRESH_SHARE:
            jobs = store_callbacks(system, _GROUP)
            system.ask(_DO_NOT_REPEAT)
            began = time.monotonic()
            push(client, jobs)
            _wait_until_done(system, client, _GROUP)
            took += time.monotonic() - began
            stored += _GROUP
        check_effects(system, stored)
        return stored / took

    with ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(connect(system.redis_url)))
        stack.enter_context(system.relay())
        stack.enter_context(system.workers(_QUEUE, processes=_PROCESSES, threads=_THREADS))
        return [
            compare(
                "backlog",
                "callbacks/s; goal: 0.8",
                rounds,
                value=lambda: old(client),
                baseline=lambda: fresh(client),
            )
        ]


def store_callbacks(system: System, count: int) -> list[Staged]:
    """Store callbacks as the ingress does, each with a job, and return the jobs."""
    jobs, sids = new_ids("job", count), [f"SM{secrets.token_hex(16)}" for _ in range(count)]
    bodies = [urlencode({"MessageSid": sid, "MessageStatus": "delivered"}).encode() for sid in sids]
    with system.bench.owner() as owner:
        owner.execute(
            _RECEIVE,
            {
                "count": count,
                "ids": new_ids("evt", count),
                "names": [f"{sid}.delivered" for sid in sids],
                "bodies": bodies,
                "jobs": jobs,
            },
        )
    return [Staged(job, "process_event", _QUEUE) for job in jobs]


def make_old(system: System) -> None:
    """Make every callback's job ten minutes older, while a relay is running."""
    for step in _STEPS_SECONDS:
        system.ask(_AGE, step, step, step)
        wait(lambda: bool(system.ask(_IS_NOTIFIED)), "the relay")
    # Within ten minutes, autovacuum would have done the same.
    system.bench.settle()


def check_effects(system: System, count: int) -> None:
    """Check that each callback had its effect exactly once.

    Raises: SystemExit if one did not.
    """
    had = system.ask(_EFFECTS)
    if had != count:
        raise SystemExit(f"wrong: {had} effects of {count} callbacks")


def _clear(system: System, client: redis.Redis) -> None:
    system.clear()
    wait(lambda: client.exists(EPOCH_KEY) == 1, "the relay")


@contextmanager
def _workers_stopped(system: System) -> Iterator[None]:
    """Stop the workers' processes (SIGSTOP) until the block ends."""
    names = [f"worker-{_QUEUE}-{number}" for number in range(_PROCESSES)]
    for name in names:
        system.supervisor.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            system.supervisor.kill(name, signal.SIGCONT)


def _wait_until_done(system: System, client: redis.Redis, count: int) -> None:
    def is_done() -> bool:
        return bool(system.ask(_IS_DONE)) and client.llen(f"{NAMESPACE}:{_QUEUE}") == 0

    limit_seconds = max(_LIMIT_SECONDS_MIN, count / _SLOWEST)
    wait(is_done, "the callbacks", every_seconds=0.02, limit_seconds=limit_seconds)
