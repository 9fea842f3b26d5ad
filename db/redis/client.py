"""Notify workers of due jobs through Redis.

A notification contains a job's id, not its arguments. If a notification is lost, the relay repeats
it. If it arrives twice, the second worker finds that the job is claimed or over.
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
#: The key that holds the run id of the Redis process with the notifications. If the key is missing,
#: Redis was emptied. If it names another process, Redis was restarted or a replica was promoted.
EPOCH_KEY = "holdfast:epoch"
#: Largest number of jobs that may wait in a process for their notification. The relay notifies of
#: all others.
_NOTIFIER_CAPACITY = 10_000
#: Largest number of jobs that are sent to Redis in one round trip.
_PUSH_MAX = 500


def connect(url: str, *, retries: int = 0, timeout_seconds: float = 5) -> redis.Redis:
    """Create a Redis client that follows a failover.

    A worker needs many retries, and the thread that notifies needs none.

    The address is that of a single server, or of a service behind Sentinels (base.addresses). Every
    new connection queries the Sentinels again. With the address of a single server, a new
    connection follows the address to the server that has taken over. Retries are always explicit,
    because a client that redis-py creates from an address has none.
    """
    connection: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": min(2, timeout_seconds),
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries),
    }
    service = sentinel_address(url)
    if service is None:
        one = redis.Redis.from_url(url, **connection)
        pool = one.connection_pool
        pool.connection_class = _following(pool.connection_class)
        return one
    timeouts = {key: connection[key] for key in ("socket_timeout", "socket_connect_timeout")}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        service.sentinels,
        sentinel_kwargs={
            **timeouts,
            # A failed Sentinel is not retried, because the next Sentinel is tried instead.
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
    """Derive a connection class that disconnects if the server is read-only.

    A read-only server was replaced in a failover, and a new connection to its address reaches the
    new server. Connections of a service behind Sentinels need no such class.
    """

    class Following(plain):  # type: ignore[misc]
        def on_connect_check_health(self, *arguments: Any, **options: Any) -> None:
            try:
                super().on_connect_check_health(*arguments, **options)
            except (redis.RedisError, OSError):
                raise
            except Exception as error:
                # The server did not greet as Redis does. redis-py closes a connection only after
                # its own errors. After any other error, it would use the connection.
                self.disconnect()
                raise redis.ConnectionError(
                    f"the server does not greet as Redis does: {error!r}"
                ) from error

        def read_response(self, *arguments: Any, **options: Any) -> Any:
            try:
                return super().read_response(*arguments, **options)
            except redis.ResponseError as error:
                # Before Redis 7, the error of a script contains the code only in the middle.
                if not isinstance(error, redis.ReadOnlyError) and "-READONLY" not in str(error):
                    raise
                self.disconnect()
                raise redis.ConnectionError(f"the server is read-only: {error}") from None

    return Following


def run_id(client: redis.Redis) -> str:
    """Read the run id of the Redis process; empty if the server does not report one.

    Raises: redis.RedisError if Redis cannot be reached. Source: Redis's command INFO.
    """
    try:
        return str(client.info("server").get("run_id", ""))
    except redis.ResponseError:
        return ""


def push(client: redis.Redis, staged: Iterable[Staged]) -> None:
    """Enqueue one message for each job in Dramatiq's format, all of them or none.

    Raises: redis.RedisError if Redis cannot be reached or refuses the write. Source: Dramatiq's
    guide, "Enqueueing messages from other languages": the hash `<queue>.msgs`, then the list
    `<queue>`.
    """
    by_queue: dict[str, dict[Any, Any]] = {}
    now_ms = time.time_ns() // 1_000_000
    # Each notification needs a unique id. If the same id were in the list twice, the second fetch
    # would find no payload.
    push_id = secrets.token_hex(4)
    for job in staged:
        message_id = f"{job.job_id}.{push_id}"
        # Plain formatting takes a third of a JSON encoder's time. It is safe, because Holdfast
        # makes every value and none needs escaping.
        by_queue.setdefault(job.queue, {})[message_id] = (
            f'{{"queue_name":"{job.queue}","actor_name":"{job.name}","args":[],'
            f'"kwargs":{{"job_id":"{job.job_id}"}},"options":{{"redis_message_id":"{message_id}"}},'
            f'"message_id":"{message_id}","message_timestamp":{now_ms}}}'
        )
    # Without a transaction, a Redis that becomes full between the two writes would keep payloads
    # without an id in the list. No worker would ever fetch them.
    with client.pipeline(transaction=True) as pipe:
        for name, messages in by_queue.items():
            pipe.hset(f"{NAMESPACE}:{name}.msgs", mapping=messages)
            pipe.rpush(f"{NAMESPACE}:{name}", *messages)
        pipe.execute()


class Notifier:
    """A thread that notifies workers after commits, so that requests need not wait.

    Its queue is bounded, and notifications may fail. The relay notifies of these jobs two seconds
    later.
    """

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)
        self._waiting: queue.SimpleQueue[Staged | None] = queue.SimpleQueue()
        self._dropped = 0
        self._next_log = 0.0
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def notify(self, staged: list[Staged]) -> None:
        """Queue the jobs for notification and return at once."""
        if self._waiting.qsize() > _NOTIFIER_CAPACITY:
            self._drop(len(staged))
            return
        for job in staged:
            self._waiting.put(job)

    def _drop(self, count: int) -> None:
        """Leave jobs to the relay, and log it at most once a second.

        During an outage every request gets here, and a line for each would flood the log.
        """
        self._dropped += count
        now = time.monotonic()
        if now >= self._next_log:
            log.warning("notifications_dropped", jobs=self._dropped)
            self._dropped, self._next_log = 0, now + 1

    def close(self) -> None:
        """Send the waiting notifications and end the thread; wait at most 5 seconds."""
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
                    log.warning("notification_failed", jobs=len(batch), error=str(error))
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
