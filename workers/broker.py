"""Dramatiq's broker, for messages that are only bells: whatever becomes of one, it is acknowledged.

The job's row knows what is owed, so that nothing is ever put into Dramatiq's dead-letter sets.
"""

from __future__ import annotations

from typing import Any

from dramatiq import Actor, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ActorNotFound

from workers.fetch import PromptConsumer

#: The actor that answers bells of jobs that this version of the worker does not know.
UNKNOWN_JOB = "unknown_job"


class _BellConsumer(PromptConsumer):
    def nack(self, message: MessageProxy) -> None:
        # An interrupt may still hit outside the wrapper that catches all; the row rings again.
        self.ack(message)


class BellBroker(RedisBroker):
    """A Redis broker that knows every actor there may be, and buries nothing."""

    @property
    def consumer_class(self) -> type[_BellConsumer]:
        return _BellConsumer

    def get_actor(self, actor_name: str) -> Actor[..., Any]:
        """This function will give the actor of a name, or the one for names it does not know."""
        try:
            return super().get_actor(actor_name)
        except ActorNotFound:
            return super().get_actor(UNKNOWN_JOB)
