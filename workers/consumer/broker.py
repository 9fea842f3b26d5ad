"""Dramatiq's broker, for messages that are only bells: whatever becomes of one, it is acknowledged.

The job's row knows what is owed, so that nothing is ever put into Dramatiq's dead-letter sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dramatiq import Actor, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ActorNotFound

from workers.consumer.fetch import PromptConsumer, Sift

#: The actor that answers bells of jobs that this version of the worker does not know.
UNKNOWN_JOB = "unknown_job"


class _BellConsumer(PromptConsumer):
    def nack(self, message: MessageProxy) -> None:
        # An interrupt may still hit outside the wrapper that catches all; the row rings again.
        self.ack(message)


class BellBroker(RedisBroker):
    """A Redis broker that knows every actor there may be, and buries nothing.

    `sifts` names the queues whose messages pass a sieve before a thread is given them.
    """

    def __init__(self, *, sifts: Mapping[str, Sift] | None = None, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sifts = sifts or {}

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> _BellConsumer:
        """This function will make what fetches a queue's messages."""
        return _BellConsumer(self, queue_name, prefetch, timeout, self._sifts.get(queue_name))

    def get_actor(self, actor_name: str) -> Actor[..., Any]:
        """This function will give the actor of a name, or the one for names it does not know."""
        try:
            return super().get_actor(actor_name)
        except ActorNotFound:
            return super().get_actor(UNKNOWN_JOB)
