"""Fetches a worker's messages as soon as they arrive, without busy polling.

Dramatiq's own consumer sleeps between two fetches, longer after each empty one. So an idle worker
would start a job tens of milliseconds late, and a busy worker would pause between two batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis
from dramatiq import Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed

from domain.jobs.types import PROCESS_EVENT

#: Ends some of these jobs, and returns the IDs of the jobs that it ended.
Sift = Callable[[list[str]], set[str]]

#: The same as Dramatiq's own script, for several messages. A message that was given to another
#: worker meanwhile is not in the set any more, and stays that worker's.
_ACKNOWLEDGE = """
    for _, id in ipairs(ARGV) do
        if redis.call('srem', KEYS[1], id) > 0 then redis.call('hdel', KEYS[2], id) end
    end
"""


class PromptConsumer(_RedisConsumer):
    """Waits for what it needs next: a message in the queue, or a free thread.

    If `sift` ends the job of a fetched message, the message is acknowledged and reaches no thread.
    """

    def __init__(
        self,
        broker: RedisBroker,
        queue_name: str,
        prefetch: int,
        timeout: int,
        sift: Sift | None = None,
    ) -> None:
        # A timeout of 0 turns Dramatiq's own wait off.
        super().__init__(broker, queue_name, prefetch, 0)  # type: ignore[no-untyped-call]
        self._seconds = timeout / 1000
        self._list = f"{broker.namespace}:{queue_name}"
        self._fetched = f"{broker.namespace}:__acks__.{broker.broker_id}.{queue_name}"
        self._acknowledge = broker.client.register_script(_ACKNOWLEDGE)
        self._acknowledged = threading.Event()
        self._sift = sift

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
        """Return the messages whose jobs are still to be run.

        If the others cannot be acknowledged, all messages are returned.
        """
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
            # A thread finds these jobs done, and acknowledges them until Redis is back.
            return fetched
        return [data for data in fetched if data not in over]

    def _wait_for_message(self) -> None:
        """Wait until the list has a message, by moving its head to its head.

        The move changes nothing, but Redis blocks until there is a head. Pushers need no change,
        and every waiting worker is woken.
        """
        self.broker.client.blmove(self._list, self._list, self._seconds, "LEFT", "LEFT")
