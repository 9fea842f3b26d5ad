"""Find the queues in Redis in which many messages wait."""

from __future__ import annotations

from typing import Any

import redis

from base.enums import Queue
from base.ids import INSTANT_LENGTH
from db.redis.client import NAMESPACE

#: Characters of a job's id that hold its kind and instant.
_PREFIX_LENGTH = len("job_") + INSTANT_LENGTH
#: Messages from which a queue counts as long. A shorter one is drained within a second or two.
LONG = 1_000


def heads_of_long_queues(client: redis.Redis) -> dict[str, str]:
    """Map each long queue to the lowest job id that can be its first message's.

    Ids of one instant have no order. So the result is the lowest id of the first job's instant.
    Raises: redis.RedisError if Redis cannot be reached.
    """
    names = [str(queue) for queue in Queue]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(f"{NAMESPACE}:{name}")
        lengths = pipe.execute()
    heads = {}
    for name, length in zip(names, lengths, strict=True):
        head: Any = client.lindex(f"{NAMESPACE}:{name}", 0) if length >= LONG else None
        if head is not None:
            # A message's id begins with the job's id (`push`). Jobs of one instant have no order.
            heads[name] = head.decode()[:_PREFIX_LENGTH]
    return heads
