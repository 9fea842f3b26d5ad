"""The bell: tells workers through Redis which job is due. It carries ids and never the work.

A lost ring is rung again by the relay; a doubled one finds the job taken or done.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Iterable
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from base.addresses import sentinel_address
from base.log import get_logger
from db.jobs.staging import Staged

log = get_logger(__name__)

#: Dramatiq's default namespace: keys are `dramatiq:<queue>` and `dramatiq:<queue>.msgs`.
NAMESPACE = "dramatiq"
#: Names the process of Redis that remembers what was rung. Missing, Redis was emptied; naming
#: another, it was started again, or a replica has taken its place.
EPOCH_KEY = "holdfast:epoch"
#: Jobs that may wait in a process for its ringer; more are dropped and rung by the relay.
_RINGER_CAPACITY = 10_000
#: Jobs pushed to Redis in one round trip at most.
_PUSH_MAX = 500


def connect(url: str, *, retries: int = 0, timeout_seconds: float = 5) -> redis.Redis:
    """This function will make a client; a worker asks for long retries, a ringer for none.

    The address is one server's, or a service's behind Sentinels (base.addresses); those are asked
    again with every new connection, so that it follows a failover, as it does where an address
    leads to another server from then on. An address alone gives redis-py no retries at all, so they
    are always given explicitly.
    """
    connection: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": min(2, timeout_seconds),
        "health_check_interval": 30,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries),
    }
    service = sentinel_address(url)
    if service is None:
        one = redis.Redis.from_url(url, **connection)
        pool = one.connection_pool
        pool.connection_class = _following(pool.connection_class)
        return one
    patience = {key: connection[key] for key in ("socket_timeout", "socket_connect_timeout")}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        service.sentinels,
        sentinel_kwargs={
            **patience,
            # The next Sentinel is the retry.
            "retry": Retry(NoBackoff(), 0),
            "username": service.sentinel_username,
            "password": service.sentinel_password,
            "ssl": service.tls,
        },
    )
    client: redis.Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        service.service,
        db=service.db,
        username=service.username,
        password=service.password,
        ssl=service.tls,
        **connection,
    )
    return client


def _following(plain: Any) -> Any:
    """A connection to an address that gives up a server that only reads: another one has taken its
    place there. That of a service behind Sentinels does so by itself."""

    class Following(plain):  # type: ignore[misc]
        def read_response(self, *arguments: Any, **options: Any) -> Any:
            try:
                return super().read_response(*arguments, **options)
            except redis.ResponseError as error:
                # Before Redis 7, a script's own error bears the word only in the middle.
                if not isinstance(error, redis.ReadOnlyError) and "-READONLY" not in str(error):
                    raise
                self.disconnect()
                raise redis.ConnectionError(f"left: {error}") from None

    return Following


def run_id(client: redis.Redis) -> str:
    """This function will name the process of Redis that answers; empty where it does not say.

    Raises: redis.RedisError when Redis cannot be reached. Source: Redis' command INFO.
    """
    try:
        return str(client.info("server").get("run_id", ""))
    except redis.ResponseError:
        return ""


def push(client: redis.Redis, staged: Iterable[Staged]) -> None:
    """Put one message a job into Redis, in Dramatiq's own format, all or none.

    Raises: redis.RedisError when Redis cannot be reached or takes nothing. Source: Dramatiq's
    guide, "Enqueueing messages from other languages": the hash `<queue>.msgs`, then the list
    `<queue>`.
    """
    by_queue: dict[str, dict[Any, Any]] = {}
    now_ms = time.time_ns() // 1_000_000
    # Unique for every ring: the same id twice in the list would be fetched without a payload.
    ring = secrets.token_hex(4)
    for job in staged:
        message_id = f"{job.job_id}.{ring}"
        # Written by hand, which takes a third of the time: every word in it is one of ours.
        by_queue.setdefault(job.queue, {})[message_id] = (
            f'{{"queue_name":"{job.queue}","actor_name":"{job.name}","args":[],'
            f'"kwargs":{{"job_id":"{job.job_id}"}},"options":{{"redis_message_id":"{message_id}"}},'
            f'"message_id":"{message_id}","message_timestamp":{now_ms}}}'
        )
    # In a transaction: a Redis that becomes full in between would keep payloads without an id,
    # which no worker ever fetches.
    with client.pipeline(transaction=True) as pipe:
        for name, messages in by_queue.items():
            pipe.hset(f"{NAMESPACE}:{name}.msgs", mapping=messages)
            pipe.rpush(f"{NAMESPACE}:{name}", *messages)
        pipe.execute()


class Ringer:
    """A thread that rings for this process after its commits, so that no request waits for Redis.

    Bounded and allowed to fail: what it drops, the relay rings two seconds later.
    """

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)
        self._waiting: queue.SimpleQueue[Staged | None] = queue.SimpleQueue()
        self._dropped = 0
        self._next_log = 0.0
        self._thread = threading.Thread(target=self._run, name="ringer", daemon=True)
        self._thread.start()

    def ring(self, staged: list[Staged]) -> None:
        """This function will hand the jobs over and return at once."""
        if self._waiting.qsize() > _RINGER_CAPACITY:
            self._drop(len(staged))
            return
        for job in staged:
            self._waiting.put(job)

    def _drop(self, count: int) -> None:
        """Leave jobs to the relay, and log it once a second at most: this is in every request."""
        self._dropped += count
        now = time.monotonic()
        if now >= self._next_log:
            log.warning("ringer is full; left to the relay", jobs=self._dropped)
            self._dropped, self._next_log = 0, now + 1

    def close(self) -> None:
        """This function will ring what is waiting and end the thread."""
        self._waiting.put(None)
        self._thread.join(timeout=5)
        self._client.close()

    def _run(self) -> None:
        while True:
            batch, closing = self._next_batch()
            if batch:
                try:
                    push(self._client, batch)
                except redis.RedisError as error:
                    log.warning("ring failed; left to the relay", jobs=len(batch), error=str(error))
            if closing:
                return

    def _next_batch(self) -> tuple[list[Staged], bool]:
        batch: list[Staged] = []
        job = self._waiting.get()
        while job is not None:
            batch.append(job)
            if len(batch) >= _PUSH_MAX:
                return batch, False
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True
