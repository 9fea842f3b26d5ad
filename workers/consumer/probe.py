"""Asks Redis whether it takes work now, with a small write on a connection of its own."""

from __future__ import annotations

import secrets

import redis

from base.log import get_logger
from db.redis.client import connect

log = get_logger(__name__)

#: Seconds within which Redis must answer.
ANSWER_SECONDS = 0.3
#: Milliseconds after which the key of a worker that has ended disappears.
_KEPT_MS = 60_000


class RedisProbe:
    """Writes one key over and over. Use it from one thread only.

    A write, because a Redis that is down, stopped, full, read-only or loading cannot notify
    workers of a job, and refuses a write in each of these states.
    """

    def __init__(
        self, redis_url: str, worker: str, *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._client = connect(redis_url, timeout_seconds=answer_seconds)
        self._key = f"holdfast:probe:{worker}"
        self._written = ""

    def takes_work(self) -> bool:
        """Tell whether Redis accepts a write in time and still knows the one before.

        False once after Redis lost the previous write, because messages of that time are lost, too.
        False too for an answer that is not Redis', such as a proxy's.
        """
        known, self._written = self._written, ""
        value = secrets.token_hex(4)
        try:
            found = self._client.set(self._key, value, px=_KEPT_MS, get=True)
        except (redis.RedisError, OSError):
            return False
        except Exception as error:
            # What redis-py cannot parse fails in many ways, and it closes the connection. Whatever
            # answered, it is no Redis that takes work.
            log.warning("redis_answer_unreadable", error=repr(error))
            return False
        self._written = value
        return not known or found == known.encode()

    def close(self) -> None:
        self._client.close()
