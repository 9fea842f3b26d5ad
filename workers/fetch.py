"""How a worker's messages are fetched: as soon as they are there, and without asking all the time.

Dramatiq's own consumer sleeps between two looks, the longer the less there was to do: an idle
worker hears of a job tens of milliseconds late, and a busy one stands still between two batches.
"""

from __future__ import annotations

import threading

import redis
from dramatiq import MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed


class PromptConsumer(_RedisConsumer):
    """Waits for what it needs next: a message in the queue, or a thread that is free again."""

    def __init__(self, broker: RedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        # With a timeout of 0 Dramatiq's own wait is none.
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]
        self._seconds = timeout / 1000
        self._list = f"{broker.namespace}:{queue_name}"
        self._acknowledged = threading.Event()

    def ack(self, message: MessageProxy) -> None:
        """This function will acknowledge a message, which makes room for the next."""
        try:
            super().ack(message)  # type: ignore[no-untyped-call]
        finally:
            self._acknowledged.set()

    def __next__(self) -> MessageProxy | None:
        # Cleared before the look, so that room made after it is not waited for.
        self._acknowledged.clear()
        message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]
        if message is None:
            if self.outstanding_message_count < self.prefetch:
                self._wait_for_message()
            else:
                self._acknowledged.wait(self._seconds)
        return message

    def _wait_for_message(self) -> None:
        """Moves the list's head to its head once it has one: nothing changes, but Redis waits.

        Whoever pushes needs to know nothing of it, and everybody who waits is woken.
        """
        try:
            self.broker.client.blmove(self._list, self._list, self._seconds, "LEFT", "LEFT")
        except redis.ConnectionError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
