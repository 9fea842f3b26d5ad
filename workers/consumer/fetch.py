"""How a worker's messages are fetched: as soon as they are there, and without asking all the time.

Dramatiq's own consumer sleeps between two looks, the longer the less there was to do: an idle
worker hears of a job tens of milliseconds late, and a busy one stands still between two batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis
from dramatiq import Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed

from domain.jobs.types import PROCESS_EVENT

#: Ends some of the jobs, and gives the ids of those that it ended.
Sift = Callable[[list[str]], set[str]]

#: As Dramatiq's own script does it for one: a message that was handed to another worker meanwhile
#: is that worker's.
_ACKNOWLEDGE = """
    for _, id in ipairs(ARGV) do
        if redis.call('srem', KEYS[1], id) > 0 then redis.call('hdel', KEYS[2], id) end
    end
"""


class PromptConsumer(_RedisConsumer):
    """Waits for what it needs next: a message in the queue, or a thread that is free again.

    What `sift` ends of the messages fetched at once is acknowledged at once, and reaches no thread.
    """

    def __init__(
        self,
        broker: RedisBroker,
        queue_name: str,
        prefetch: int,
        timeout: int,
        sift: Sift | None = None,
    ) -> None:
        # With a timeout of 0 Dramatiq's own wait is none.
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]
        self._seconds = timeout / 1000
        self._list = f"{broker.namespace}:{queue_name}"
        self._fetched = f"{broker.namespace}:__acks__.{broker.broker_id}.{queue_name}"
        self._acknowledge = broker.client.register_script(_ACKNOWLEDGE)
        self._acknowledged = threading.Event()
        self._sift = sift

    def ack(self, message: MessageProxy) -> None:
        """This function will acknowledge a message, which makes room for the next."""
        try:
            super().ack(message)  # type: ignore[no-untyped-call]
        finally:
            self._acknowledged.set()

    def __next__(self) -> MessageProxy | None:
        # Cleared before the look, so that room made after it is not waited for.
        self._acknowledged.clear()
        if not self.message_cache:
            room = self.prefetch - self.outstanding_message_count
            if room <= 0:
                self._acknowledged.wait(self._seconds)
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
            return fetched if self._sift is None else self._sifted(fetched, self._sift)
        except redis.ConnectionError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]

    def _sifted(self, fetched: list[bytes], sift: Sift) -> list[bytes]:
        """Gives what is left; an event that was ended and is left all the same is found over."""
        bells = {data: Message.decode(data) for data in fetched if data is not None}
        job_of = {
            data: str(bell.kwargs["job_id"])
            for data, bell in bells.items()
            if bell.actor_name == PROCESS_EVENT.name
        }
        ended = sift(list(job_of.values())) if job_of else set()
        if not ended:
            return fetched
        over = {data for data, job_id in job_of.items() if job_id in ended}
        try:
            self._acknowledge(
                keys=[self._fetched, f"{self._list}.msgs"],
                args=[bells[data].options["redis_message_id"] for data in over],
            )
        except redis.RedisError:
            # A thread finds them over, and goes on acknowledging until Redis is there again.
            return fetched
        return [data for data in fetched if data not in over]

    def _wait_for_message(self) -> None:
        """Moves the list's head to its head once it has one: nothing changes, but Redis waits.

        Whoever pushes needs to know nothing of it, and everybody who waits is woken.
        """
        self.broker.client.blmove(self._list, self._list, self._seconds, "LEFT", "LEFT")
