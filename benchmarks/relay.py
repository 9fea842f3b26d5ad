"""relay: waiting jobs per second that the relay notifies again after a Redis loss.

100,000 jobs wait and one relay runs. The time is measured from emptying Redis until the last job is
in its queue. The baseline is Dramatiq's own `broker.enqueue`, message by message, for a tenth as
many messages.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack

from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from benchmarks.measure import Result, compare, wait
from benchmarks.system import System
from db.redis.client import EPOCH_KEY, connect

_JOBS = 100_000
_BASELINE_JOBS = _JOBS // 10
#: Length of a job's ID, with which each notification begins.
_ID_BYTES = 30

#: Jobs whose notification was sent, and which no worker has claimed.
_WAITING = """
    INSERT INTO jobs (id, name, kwargs, queue, correlation_id, ring_at, rings)
    SELECT 'job_' || lpad(n::text, 26, '0'), 'process_event', '{"event_id": "evt_bench"}',
           'callbacks', 'cor_bench', clock_timestamp() + interval '10 minutes', 1
    FROM generate_series(1, %s) AS n
"""


def relay(system: System, rounds: int, seconds: float) -> list[Result]:
    """Measure one relay that notifies workers of 100,000 jobs again.

    `seconds` has no effect, because the amount is fixed. The goal of 10 seconds is 10,000 jobs per
    second.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(contextlib.closing(connect(system.redis_url)))
        broker = RedisBroker(client=redis, middleware=[])  # type: ignore[no-untyped-call]
        stack.enter_context(system.relay())

        def ours() -> float:
            system.clear()
            wait(lambda: redis.exists(EPOCH_KEY) == 1, "the relay")
            with system.bench.owner() as owner:
                owner.execute(_WAITING, (_JOBS,))
            system.bench.settle()
            began = time.monotonic()
            redis.flushall()
            wait(lambda: redis.llen("dramatiq:callbacks") >= _JOBS, "the bells")
            took = time.monotonic() - began
            # A job that has waited for more than 15 seconds may be notified twice, which is
            # correct. Count the distinct IDs.
            notified = {one[:_ID_BYTES] for one in redis.lrange("dramatiq:callbacks", 0, -1)}
            if len(notified) != _JOBS:
                raise SystemExit(f"wrong: {len(notified)} jobs notified of {_JOBS}")
            return _JOBS / took

        def enqueued() -> float:
            redis.flushall()
            began = time.monotonic()
            for number in range(_BASELINE_JOBS):
                broker.enqueue(
                    Message(
                        queue_name="bench",
                        actor_name="count",
                        args=(),
                        kwargs={"job_id": f"job_{number}"},
                        options={},
                    )
                )
            return _BASELINE_JOBS / (time.monotonic() - began)

        return [compare("relay", "jobs/s", rounds, value=ours, baseline=enqueued)]
