"""How a worker ends: it takes nothing more, hands back what it has not begun, finishes the rest."""

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

#: Seconds for the threads that fetch to see that they shall not: they wait for Redis at most.
_FETCHERS_SECONDS = 2.0
#: Seconds that handing back may take: a Redis that says nothing is asked again and again.
_HAND_BACK_SECONDS = 5.0


class StopSignals:
    """Counts SIGTERM and SIGINT from now on: the first asks to stop, a second to hurry."""

    def __init__(self) -> None:
        self.count = 0
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def wait(self) -> None:
        """This function will block until the first signal. Only on the main thread."""
        wait_until(lambda: self.count > 0, limit_seconds=math.inf)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        # A plain number, polled: an Event's lock may be held by the code this interrupts.
        self.count += 1


def stop_worker(worker: Worker, *, limit_seconds: float, hurry: Callable[[], bool]) -> int:
    """This function will stop a worker, and give how many of its threads did not end in time.

    Dramatiq's own stop keeps fetching while what runs is finished, and hands back last: a job that
    was fetched and not begun would wait for the slowest one. Here it goes back at once.
    """
    for thread in worker.workers:
        thread.stop()
    for consumer in worker.consumers.values():
        consumer.stop()
    end = time.monotonic() + _FETCHERS_SECONDS
    for consumer in worker.consumers.values():
        consumer.join(max(0.0, end - time.monotonic()))
    _hand_back_soon(worker, hurry)

    def still_running() -> int:
        return sum(thread.is_alive() for thread in worker.workers)

    wait_until(lambda: hurry() or not still_running(), limit_seconds=limit_seconds)
    # A thread that waited for a message when it was told to stop may have taken none or one.
    _hand_back_soon(worker, hurry)
    return still_running()


def _hand_back_soon(worker: Worker, hurry: Callable[[], bool]) -> None:
    handing = threading.Thread(target=_hand_back, args=(worker,), name="hand-back", daemon=True)
    handing.start()
    wait_until(lambda: hurry() or not handing.is_alive(), limit_seconds=_HAND_BACK_SECONDS)
    if handing.is_alive():
        log.warning("not handed back in time; left to the relay")


def _hand_back(worker: Worker) -> None:
    """Put into its queue what was fetched and not begun; if Redis is away, the relay rings."""
    fetched: dict[str, list[MessageProxy]] = defaultdict(list)
    while True:
        try:
            message = worker.work_queue.get_nowait().message
        except Empty:
            break
        fetched[message.queue_name].append(message)
    for name, consumer in worker.consumers.items():
        # Fetched in one answer, and not yet looked at when the thread ended.
        cache: list[bytes | None] = getattr(consumer.consumer, "message_cache", [])
        while cache and not consumer.is_alive():
            # None is an id whose message Redis has lost: the job's row rings for it.
            if (data := cache.pop()) is not None:
                fetched[name].append(MessageProxy(Message.decode(data)))
    for name, messages in fetched.items():
        try:
            worker.consumers[name].requeue_messages(messages)
        except redis.RedisError as error:
            log.warning("not handed back; left to the relay", jobs=len(messages), error=str(error))
