"""Find the queues in Redis in which many messages wait."""

from __future__ import annotations

from typing import Any

import redis

from base.enums import Queue
from db.redis.client import NAMESPACE

#: Messages from which a queue counts as long. A shorter one is drained within a second or two.
LONG = 1_000


def heads_of_long_queues(client: redis.Redis) -> dict[str, str]:
    """Map each long queue to the job id of its first message.

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
            # A message's id is the job's id, a dot, and a part of its own (`push`).
            heads[name] = head.decode().partition(".")[0]
    return heads
