"""Dramatiq's broker for messages that are only notifications of jobs.

The broker acknowledges every message, even if Dramatiq rejects it. Dramatiq's dead-letter set
therefore stays empty. The job's row records whether the work is done.
"""

from __future__ import annotations

from typing import Any

from dramatiq import Actor, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ActorNotFound

from workers.consumer.fetch import BlockingConsumer

#: The actor for notifications of jobs that this version of the worker does not know.
UNKNOWN_JOB = "unknown_job"


class _NotificationConsumer(BlockingConsumer):
    def nack(self, message: MessageProxy) -> None:
        # Dramatiq rejects a message if an interrupt hits outside the wrapper that catches all
        # errors. The relay repeats the notification.
        self.ack(message)


class NotificationBroker(RedisBroker):
    """A Redis broker with an actor for every name, and without dead letters."""

    def consume(
        self, queue_name: str, prefetch: int = 1, timeout: int = 5000
    ) -> _NotificationConsumer:
        """Make the consumer that fetches a queue's messages."""
        return _NotificationConsumer(self, queue_name, prefetch, timeout)

    def get_actor(self, actor_name: str) -> Actor[..., Any]:
        """Return the actor of a name, or the actor for unknown jobs."""
        try:
            return super().get_actor(actor_name)
        except ActorNotFound:
            return super().get_actor(UNKNOWN_JOB)
