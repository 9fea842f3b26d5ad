"""Stops a worker: it fetches no more, returns waiting messages, ends its jobs."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from queue import Empty
from types import FrameType

import redis
from dramatiq import Message, MessageProxy
from dramatiq.worker import Worker

from base.clock import wait_until
from base.log import get_logger

log = get_logger(__name__)

#: Seconds for the fetching threads to see that they must stop. They may be waiting for Redis.
_FETCHERS_STOP_SECONDS = 2.0
#: Time limit for returning messages, in seconds. The Redis client keeps retrying a silent Redis.
_RETURN_SECONDS = 5.0


class StopSignals:
    """Counts SIGTERM and SIGINT: the first asks to stop, the second to stop at once."""

    def __init__(self) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._count_signal)
        signal.signal(signal.SIGINT, self._count_signal)

    def wait(self) -> None:
        """Block until the first signal. Call this only on the main thread."""
        wait_until(lambda: self.count > 0, limit_seconds=math.inf)

    def _count_signal(self, _number: int, _frame: FrameType | None) -> None:
        # The main thread polls a number. An Event could deadlock, because the interrupted code may
        # hold the Event's lock.
        self.count += 1


def stop_worker(worker: Worker, *, limit_seconds: float, hurry: Callable[[], bool]) -> int:
    """Stop a worker, and return how many of its threads did not end in time.

    Dramatiq's own stop keeps fetching while running jobs finish, and returns messages last. A job
    that was fetched but not begun would then wait for the slowest running job. This function
    returns the messages of these jobs to their queues at once.
    """
    for thread in worker.workers:
        thread.stop()
    for consumer in worker.consumers.values():
        consumer.stop()
    end = time.monotonic() + _FETCHERS_STOP_SECONDS
    for consumer in worker.consumers.values():
        consumer.join(max(0.0, end - time.monotonic()))
    _return_messages_soon(worker, hurry)

    def running_threads() -> int:
        return sum(thread.is_alive() for thread in worker.workers)

    wait_until(lambda: hurry() or not running_threads(), limit_seconds=limit_seconds)
    # A thread that was waiting for a message may have taken one although it must stop.
    _return_messages_soon(worker, hurry)
    return running_threads()


def _return_messages_soon(worker: Worker, hurry: Callable[[], bool]) -> None:
    thread = threading.Thread(
        target=_return_messages, args=(worker,), name="return-messages", daemon=True
    )
    thread.start()
    wait_until(lambda: hurry() or not thread.is_alive(), limit_seconds=_RETURN_SECONDS)
    if thread.is_alive():
        log.warning("messages_not_returned_in_time")


def _return_messages(worker: Worker) -> None:
    """Put fetched messages that were not begun back into their queues.

    If Redis is away, the relay notifies their jobs again.
    """
    fetched: dict[str, list[MessageProxy]] = defaultdict(list)
    while True:
        try:
            message = worker.work_queue.get_nowait().message
        except Empty:
            break
        fetched[message.queue_name].append(message)
    for name, consumer in worker.consumers.items():
        # These messages were fetched in one batch, and not delivered before the thread ended.
        cache: list[bytes | None] = getattr(consumer.consumer, "message_cache", [])
        while cache and not consumer.is_alive():
            # None is the ID of a message that Redis has lost. The relay notifies its job again.
            if (data := cache.pop()) is not None:
                fetched[name].append(MessageProxy(Message.decode(data)))
    for name, messages in fetched.items():
        try:
            worker.consumers[name].requeue_messages(messages)
        except redis.RedisError as error:
            log.warning("messages_not_returned", jobs=len(messages), error=str(error))
