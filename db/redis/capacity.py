"""How many notifications fit into Redis, and how a Redis that is full of them is emptied.

Workers write to Redis to fetch and to acknowledge a message. A Redis that has reached its
`maxmemory` refuses both, so its messages would never be processed. Deleting needs no memory.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import redis

from base.enums import Queue
from db.redis.client import EPOCH_KEY, NAMESPACE

#: Bytes that one message takes in Redis, with its id in two structures; a generous estimate.
_MESSAGE_BYTES = 800
#: What fits where Redis has no limit, or does not say.
UNLIMITED = sys.maxsize


class Memory(NamedTuple):
    """What Redis may use, 0 where it has no limit or does not say, and what it uses, in bytes."""

    maximum: int
    used: int

    def room(self, share: float) -> int:
        """Return how many more messages fit into this share of it; negative if it is exceeded."""
        if not self.maximum:
            return UNLIMITED
        return int((self.maximum * share - self.used) // _MESSAGE_BYTES)


def read_memory(client: redis.Redis) -> Memory:
    """Ask Redis for its memory. Source: its command INFO, section memory.

    Raises: redis.RedisError when Redis cannot be reached.
    """
    try:
        found = client.info("memory")
    except redis.ResponseError:
        return Memory(0, 0)
    # As Redis itself counts before it refuses a write.
    used = int(found.get("used_memory", 0)) - int(found.get("mem_not_counted_for_evict", 0))
    return Memory(int(found.get("maxmemory", 0)), used)


def is_full(error: redis.RedisError) -> bool:
    """Tell whether Redis refused a write because its memory is full."""
    return isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in str(error)


def short_queues(client: redis.Redis, fewer_than: int) -> list[str]:
    """Return the queues, safety excepted, in which fewer messages wait."""
    queues = [str(queue) for queue in Queue if queue is not Queue.SAFETY]
    return [name for name in queues if client.llen(f"{NAMESPACE}:{name}") < fewer_than]


def drop_messages(client: redis.Redis) -> bool:
    """Delete all waiting messages, and have every job notified again; False if there were none.

    Messages that a worker has fetched are not needed any more. The epoch is deleted in the same
    transaction, so that the relay knows that messages were lost.
    """
    keys = [f"{NAMESPACE}:{queue}{kind}" for queue in Queue for kind in ("", ".msgs")]
    if not client.exists(*keys):
        return False
    with client.pipeline(transaction=True) as pipe:
        pipe.unlink(*keys, EPOCH_KEY)
        pipe.execute()
    return True
