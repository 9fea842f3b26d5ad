"""Limit the notifications in Redis to its memory, and empty a Redis that is full.

Workers write to Redis to fetch and to acknowledge a message. A Redis that has reached its
`maxmemory` refuses both. Its messages would then never be processed. Deletion needs no memory.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import redis

from base.enums import Queue
from db.redis.client import EPOCH_KEY, NAMESPACE

#: Bytes of one message in Redis, with its id in two structures. The estimate is on the high side.
_MESSAGE_BYTES = 800
#: The number of messages that fit if Redis has no memory limit or does not report one.
UNLIMITED = sys.maxsize


class Memory(NamedTuple):
    """Redis's memory limit and its use, in bytes.

    `maximum` is 0 if Redis has no limit or does not report one.
    """

    maximum: int
    used: int

    def room(self, share: float) -> int:
        """Return how many more messages fit into this share of the limit (0 to 1).

        The result is negative if the share is exceeded already.
        """
        if not self.maximum:
            return UNLIMITED
        return int((self.maximum * share - self.used) // _MESSAGE_BYTES)


def read_memory(client: redis.Redis) -> Memory:
    """Read the memory limit and use from Redis.

    Source: Redis's command INFO, section memory. Raises: redis.RedisError if Redis cannot be
    reached.
    """
    try:
        found = client.info("memory")
    except redis.ResponseError:
        return Memory(0, 0)
    # Redis subtracts the same bytes before it decides to refuse a write.
    used = int(found.get("used_memory", 0)) - int(found.get("mem_not_counted_for_evict", 0))
    return Memory(int(found.get("maxmemory", 0)), used)


def is_full(error: redis.RedisError) -> bool:
    """Return whether Redis refused a write because its memory is full."""
    return isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in str(error)


def short_queues(client: redis.Redis, fewer_than: int) -> list[str]:
    """List the queues, except safety, in which fewer messages than this wait."""
    queues = [str(queue) for queue in Queue if queue is not Queue.SAFETY]
    return [name for name in queues if client.llen(f"{NAMESPACE}:{name}") < fewer_than]


def drop_messages(client: redis.Redis) -> bool:
    """Delete all waiting messages, and let the relay notify every job again.

    The payloads of messages that a worker has fetched are no longer needed and are deleted too. The
    epoch is deleted in the same transaction, so that the relay detects the loss. Returns False if
    there were no messages.
    """
    keys = [f"{NAMESPACE}:{queue}{kind}" for queue in Queue for kind in ("", ".msgs")]
    if not client.exists(*keys):
        return False
    with client.pipeline(transaction=True) as pipe:
        pipe.unlink(*keys, EPOCH_KEY)
        pipe.execute()
    return True
