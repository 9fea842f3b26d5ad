"""Checks whether Redis takes work, with a small write on its own connection."""

from __future__ import annotations

import secrets

import redis

from base.log import get_logger
from db.redis.client import connect

log = get_logger(__name__)

#: Seconds within which Redis must answer.
ANSWER_SECONDS = 0.3
#: Milliseconds after which the key of an ended worker expires.
_KEPT_MS = 60_000


class RedisProbe:
    """Writes one key again and again. Use it from one thread only.

    It writes, because a Redis that is down, stopped, full, read-only or loading refuses a write. In
    each of these states, it cannot notify workers of a job.
    """

    def __init__(
        self, redis_url: str, worker: str, *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._client = connect(redis_url, timeout_seconds=answer_seconds)
        self._key = f"holdfast:probe:{worker}"
        self._written = ""

    def takes_work(self) -> bool:
        """Return whether Redis accepts a write in time and still has the previous one.

        It returns False once after Redis lost the previous write, because notifications of that
        time are lost too. It returns False for an answer that is not from Redis, such as a proxy's.
        """
        known, self._written = self._written, ""
        value = secrets.token_hex(4)
        try:
            found = self._client.set(self._key, value, px=_KEPT_MS, get=True)
        except (redis.RedisError, OSError):
            return False
        except Exception as error:
            # redis-py raises many kinds of errors for an answer that it cannot parse, and closes
            # the connection. Such an answer does not come from a Redis that takes work.
            log.warning("redis_answer_unreadable", error=repr(error))
            return False
        self._written = value
        return not known or found == known.encode()

    def close(self) -> None:
        self._client.close()
