"""Fetches a worker's messages as soon as they arrive, without busy polling.

Dramatiq's own consumer sleeps between two fetches, longer after each empty one. So an idle worker
would start a job tens of milliseconds late, and a busy worker would pause between two batches.
"""

from __future__ import annotations

import threading

import redis
from dramatiq import MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed


class BlockingConsumer(_RedisConsumer):
    """Waits for what it needs next: a message in the queue, or a free thread."""

    def __init__(self, broker: RedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        # A timeout of 0 turns Dramatiq's own wait off.
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]
        self._wait_seconds = timeout / 1000
        self._list = f"{broker.namespace}:{queue_name}"
        self._acknowledged = threading.Event()

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a message, which makes room for the next."""
        try:
            super().ack(message)  # type: ignore[no-untyped-call]
        finally:
            self._acknowledged.set()

    def __next__(self) -> MessageProxy | None:
        # Cleared before the room is computed. An acknowledgement after that ends the wait at once.
        self._acknowledged.clear()
        if not self.message_cache:
            room = self.prefetch - self.outstanding_message_count
            if room <= 0:
                self._acknowledged.wait(self._wait_seconds)
                return None
            self.message_cache = self._fetch(room)
            if not self.message_cache:
                return None
        message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]
        return message

    def _fetch(self, room: int) -> list[bytes]:
        try:
            fetched: list[bytes] = self.broker.do_fetch(self.queue_name, room)
            if not fetched:
                self._wait_for_message()
            return fetched
        except redis.ConnectionError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]

    def _wait_for_message(self) -> None:
        """Wait until the list has a message, by moving its head to its head.

        The move changes nothing, but Redis blocks until there is a head. Pushers need no change,
        and every waiting worker is woken.
        """
        self.broker.client.blmove(self._list, self._list, self._wait_seconds, "LEFT", "LEFT")
