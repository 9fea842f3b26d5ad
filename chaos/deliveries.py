"""Delivery of events that the sandbox has signed, until each is accepted.

Some events are sent late, some out of order, some twice at once, and some again although they were
accepted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from chaos.journal import Journal

#: Share of events that are sent late, and their longest delay in seconds.
_LATE_SHARE = 0.3
_LATE_SECONDS = 4.0
#: Share of events that are sent twice at once, and share sent again although they were accepted.
_TWICE_SHARE = 0.15
_REPEATED_SHARE = 0.1


@dataclass
class PendingEvent:
    """One event that is still to be delivered."""

    organization_id: str
    event_id: str
    copies: int
    repeated: bool
    #: Monotonic time of the next delivery, in seconds.
    due_at: float
    accepted: bool = False


@dataclass
class DeliveryQueue:
    """Events still to be delivered, and the sandbox that signs and sends them."""

    http: httpx.Client
    journal: Journal
    pending: list[PendingEvent] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    in_delivery: int = 0
    queued: int = 0
    sent_twice: int = 0
    late: int = 0
    #: Threads that may still produce events.
    producers: int = 0

    def wrap_producer(self, work: Callable[[], None]) -> Callable[[], None]:
        """Wrap a thread's work that produces events, so that senders wait for its end.

        A stopping thread still produces the events of a change that it has begun. If the senders
        ended earlier, its last event would never be sent, and would count as lost.
        """
        with self.lock:
            self.producers += 1

        def counted_work() -> None:
            try:
                work()
            finally:
                with self.lock:
                    self.producers -= 1

        return counted_work

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Send a request to the sandbox's control API, which no fault touches."""
        answer = self.http.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    def queue_event(
        self, event_type: str, organization_id: str, resource_id: str, chance: Random
    ) -> None:
        """Have the sandbox make and sign the event, and queue it for delivery."""
        (event,) = self.control(
            "POST",
            "/paypal/events",
            {"event_type": event_type, "resource_id": resource_id, "deliver": False},
        )
        late = chance.uniform(0, _LATE_SECONDS) if chance.random() < _LATE_SHARE else 0.0
        copies = 2 if chance.random() < _TWICE_SHARE else 1
        repeated = chance.random() < _REPEATED_SHARE
        event_id = event["event_id"]
        self.journal.record_request("webhook", organization_id, event_id)
        with self.lock:
            self.queued += 1
            self.late += late > 0
            self.pending.append(
                PendingEvent(organization_id, event_id, copies, repeated, time.monotonic() + late)
            )

    def take_due_event(self) -> PendingEvent | None:
        """Take an event from the middle of those that are due; None if none is due."""
        with self.lock:
            due = [event for event in self.pending if event.due_at <= time.monotonic()]
            if not due:
                return None
            event = due[len(due) // 2]
            self.pending.remove(event)
            self.in_delivery += 1
            return event

    def put_back(self, event: PendingEvent | None, seconds: float) -> None:
        """Return a taken event to the queue after some seconds; None if it needs no more."""
        with self.lock:
            self.in_delivery -= 1
            if event is not None:
                event.due_at = time.monotonic() + seconds
                self.pending.append(event)

    @property
    def is_over(self) -> bool:
        """Whether all events have been delivered and no more can follow."""
        with self.lock:
            return not self.pending and not self.in_delivery and not self.producers
