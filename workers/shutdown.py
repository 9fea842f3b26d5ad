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
_FETCHERS_SECONDS = 2.0
#: Seconds for returning messages, because a silent Redis is tried again and again.
_RETURN_SECONDS = 5.0


class StopSignals:
    """Counts SIGTERM and SIGINT: the first one asks to stop, a second one to hurry."""

    def __init__(self) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def wait(self) -> None:
        """Block until the first signal. Call this only on the main thread."""
        wait_until(lambda: self.count > 0, limit_seconds=math.inf)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        # A plain number that is polled: an Event's lock may be held by the interrupted code.
        self.count += 1


def stop_worker(worker: Worker, *, limit_seconds: float, hurry: Callable[[], bool]) -> int:
    """Stop a worker, and return how many of its threads did not end in time.

    Dramatiq's own stop keeps fetching while running jobs finish, and returns messages last. A job
    that was fetched but not begun would wait for the slowest one. Here it goes back at once.
    """
    for thread in worker.workers:
        thread.stop()
    for consumer in worker.consumers.values():
        consumer.stop()
    end = time.monotonic() + _FETCHERS_SECONDS
    for consumer in worker.consumers.values():
        consumer.join(max(0.0, end - time.monotonic()))
    _return_messages_soon(worker, hurry)

    def still_running() -> int:
        return sum(thread.is_alive() for thread in worker.workers)

    wait_until(lambda: hurry() or not still_running(), limit_seconds=limit_seconds)
    # A thread that was waiting for a message may have taken one although it must stop.
    _return_messages_soon(worker, hurry)
    return still_running()


def _return_messages_soon(worker: Worker, hurry: Callable[[], bool]) -> None:
    returning = threading.Thread(
        target=_return_messages, args=(worker,), name="return-messages", daemon=True
    )
    returning.start()
    wait_until(lambda: hurry() or not returning.is_alive(), limit_seconds=_RETURN_SECONDS)
    if returning.is_alive():
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
        # Fetched together with others, and not delivered when the thread ended.
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
