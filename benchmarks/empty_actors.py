"""The workers of the baselines: Dramatiq's actors that do almost nothing.

Dramatiq's own command runs them, with REDIS_URL set:

    python -m dramatiq benchmarks.empty_actors:make_broker -p 2 -t 8

The middleware is that of Holdfast's workers, less than Dramatiq loads by default. Everything else
is Dramatiq's default. A message has the content of a notification: one text named `job_id`.
"""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import ShutdownNotifications, TimeLimit

from db.redis.client import connect

#: The queue of both actors.
QUEUE = "bench"
#: Redis keys: the counter of `count`, and the list of delays that `note` measures.
COUNTER, LATENCIES = "bench:counter", "bench:latencies"


def make_broker() -> None:
    """Create the broker and its actors. Dramatiq's command calls this function."""
    client = connect(os.environ["REDIS_URL"])
    broker = RedisBroker(  # type: ignore[no-untyped-call]
        client=client, middleware=[TimeLimit(), ShutdownNotifications()], namespace="dramatiq"
    )
    dramatiq.set_broker(broker)

    def count(job_id: str) -> None:
        client.incr(COUNTER)

    def note(job_id: str) -> None:
        client.rpush(LATENCIES, time.time() - float(job_id))

    dramatiq.actor(broker=broker, queue_name=QUEUE)(count)
    dramatiq.actor(broker=broker, queue_name=QUEUE)(note)
