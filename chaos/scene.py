"""Shared state of the traffic's threads, and how they repeat requests.

No thread assumes the result of an unanswered request. Each thread repeats its request under the
same key until it is answered. The journal records each request and answer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy.exc import DBAPIError

from base.outcomes import NotYet, OutcomeUnknown
from chaos.child import Message
from chaos.control import control_client
from chaos.deliveries import DeliveryQueue
from chaos.journal import Journal
from db.engine import Database
from db.redis.client import Notifier

#: Largest number of connections of the traffic, about one for each thread.
_POOL_SIZE = 40
#: Seconds after which a stopping thread gives up requests that are still unanswered.
GIVE_UP_SECONDS = 90.0
#: Errors of a transaction that the database did not answer. It is run again.
UNANSWERED = (NotYet, OutcomeUnknown, DBAPIError, psycopg.Error)


@dataclass(frozen=True)
class Client:
    """One organization as the traffic knows it."""

    organization_id: str
    #: hot: most of the spending goes to this organization. poor: it has hardly any money.
    hot: bool
    poor: bool
    subscription_id: str
    #: Its phone number at Vapi, which callers dial.
    number_id: str


#: One request under its own key: organization, key and micros.
TrafficRequest = tuple[str, str, int]
#: Sends requests and returns the answers in the same order.
Act = Callable[[Sequence[TrafficRequest]], Sequence[str]]


class Scene:
    """Shared state of the threads: connections, journal, and when to stop."""

    def __init__(self, order: Message) -> None:
        self.seed = int(order["seed"])
        self.with_holds = bool(order["holds"])
        self.clients = [Client(**one) for one in order["clients"]]
        #: The organization that receives calls that ignore their maximum duration. It has no other
        #: traffic.
        self.overlong = Client(**order["overlong"]) if order.get("overlong") else None
        #: The organization whose campaign requests permission to dial, and the campaign's ID at
        #: Vapi.
        self.campaigner = Client(**order["campaigner"]) if order.get("campaigner") else None
        self.campaign_id = str(order.get("campaign_id", ""))
        self.journal = Journal(Path(order["journal"]))
        notifier = Notifier(order["redis_url"])
        self.database = Database(
            order["database_url"],
            name="traffic",
            pool_size=_POOL_SIZE,
            after_commit=notifier.notify,
        )
        self.stopping = threading.Event()
        #: Requests that were refused after an unanswered attempt. The refusal is final only when
        #: repeated in the calm phase.
        self.doubtful: list[tuple[str, TrafficRequest, Act]] = []
        #: Number of requests that the threads have sent, without repeats.
        self.request_count = 0
        #: Threads that ended with an error, each with its traceback.
        self.died: list[tuple[str, str]] = []
        # No fault touches the control API. It responds once a delivery has been answered.
        self.deliveries = DeliveryQueue(
            control_client(order["control_url"], timeout_seconds=60), self.journal
        )
        self._stopped_at = 0.0

    def chance(self, name: str) -> random.Random:
        """Return a thread's own random choices, the same for the same seed."""
        return random.Random(f"{self.seed}:{name}")  # noqa: S311

    def stop(self) -> None:
        """Let every thread finish what it has begun."""
        self._stopped_at = time.monotonic()
        self.stopping.set()

    @property
    def has_given_up(self) -> bool:
        """Whether the threads give up unanswered requests, which then count as lost."""
        return self.stopping.is_set() and (time.monotonic() - self._stopped_at > GIVE_UP_SECONDS)

    def ask(
        self,
        kind: str,
        requests: Sequence[TrafficRequest],
        act: Act,
        in_the_calm: tuple[str, Act] | None = None,
    ) -> Sequence[str]:
        """Repeat the requests until they are answered, and return the answers.

        If the stopping traffic gives up, the result is empty. A refusal after an unanswered attempt
        is kept for `settle`, because the first request may still take effect. `settle` repeats the
        request, or sends the one in `in_the_calm`.
        """
        for organization_id, key, micros in requests:
            self.journal.record_request(kind, organization_id, key, micros)
        self.request_count += len(requests)
        may_have_taken_effect = False
        while not self.has_given_up:
            try:
                outcomes = act(requests)
            except UNANSWERED as error:
                may_have_taken_effect = may_have_taken_effect or isinstance(error, OutcomeUnknown)
                self._record_unanswered(kind, requests, error)
                time.sleep(random.uniform(0.05, 0.4))  # noqa: S311
                continue
            for request, outcome in zip(requests, outcomes, strict=True):
                self.journal.record_answer(kind, request[0], request[1], outcome)
                if may_have_taken_effect and outcome != "OK":
                    later_kind, later_act = in_the_calm or (kind, act)
                    self.doubtful.append((later_kind, request, later_act))
            return outcomes
        return []

    def settle(self) -> int:
        """Repeat, in the calm phase, each request that was refused after no answer.

        Return the number of requests.
        """
        doubtful, self.doubtful = self.doubtful, []
        for kind, request, act in doubtful:
            self.ask(kind, [request], act)
        return len(doubtful)

    def _record_unanswered(
        self, kind: str, requests: Sequence[TrafficRequest], error: Exception
    ) -> None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        for organization_id, key, _ in requests:
            self.journal.record_no_answer(
                kind, organization_id, key, f"{type(cause).__name__}: {error}"
            )
