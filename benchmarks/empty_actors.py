"""The baselines' workers: actors of Dramatiq's own that do next to nothing, run by its own command.

`python -m dramatiq benchmarks.empty_actors:make_broker -p 2 -t 8`, with REDIS_URL. The middleware
is ours, which is less than Dramatiq loads by default; the rest is as Dramatiq has it. They are sent
what a bell of ours is: one text named job_id.
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
#: Where `count` counts, and where `note` tells how long it took to be reached.
COUNTER, LATENCIES = "bench:counter", "bench:latencies"


def make_broker() -> None:
    """This function will make the broker and its actors, as Dramatiq's command asks for."""
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
