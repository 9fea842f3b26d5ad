"""What the traffic's threads share, and how they ask: never taking silence for an answer.

Every wish is repeated under its own key until it is answered; wish and answer stand in the journal.
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
from chaos.child import Words
from chaos.control import control_client
from chaos.journal import Journal
from chaos.post import Post
from db.engine import Database
from db.redis.client import Ringer

#: Connections of the traffic's own pool: one a thread.
_POOL = 40
#: Seconds after which a thread that is told to stop gives up what nobody answers.
PATIENCE_SECONDS = 90.0
#: What a transaction raises when the database did not answer it: it is asked for again.
UNANSWERED = (NotYet, OutcomeUnknown, DBAPIError, psycopg.Error)


@dataclass(frozen=True)
class Client:
    """One organization as the traffic knows it."""

    organization_id: str
    #: Whether it is one of those that most of the spending goes to, and one that has no money.
    hot: bool
    poor: bool
    subscription_id: str
    #: The phone number at Vapi that its callers ring.
    number_id: str


#: What is asked for under one key: organization, key and micros.
Wish = tuple[str, str, int]
#: Asks for wishes and gives the answers in their order.
Act = Callable[[Sequence[Wish]], Sequence[str]]


class Scene:
    """What the threads share: the ways to the house, the journal, and when to stop."""

    def __init__(self, order: Words) -> None:
        self.seed = int(order["seed"])
        self.with_holds = bool(order["holds"])
        self.clients = [Client(**one) for one in order["clients"]]
        #: Whom calls ring up that ignore their maximum duration; no other traffic is about it.
        self.overlong = Client(**order["overlong"]) if order.get("overlong") else None
        #: Whose campaign asks whether it may dial contacts, and the campaign's id at Vapi.
        self.campaigner = Client(**order["campaigner"]) if order.get("campaigner") else None
        self.campaign_id = str(order.get("campaign_id", ""))
        self.journal = Journal(Path(order["journal"]))
        ringer = Ringer(order["redis_url"])
        self.database = Database(
            order["database_url"], name="traffic", pool_size=_POOL, after_commit=ringer.ring
        )
        self.stopping = threading.Event()
        #: What was refused after it had gone unanswered: only in the calm is that the last word.
        self.doubtful: list[tuple[str, Wish, Act]] = []
        self.asked = 0
        #: Threads that an error ended, each with its traceback.
        self.died: list[tuple[str, str]] = []
        # No fault touches the control plane; it answers when a delivery has been answered.
        self.post = Post(control_client(order["control_url"], timeout_seconds=60), self.journal)
        self._stopped_at = 0.0

    def chance(self, name: str) -> random.Random:
        """This function will give a thread its own choices, the same for the same seed."""
        return random.Random(f"{self.seed}:{name}")  # noqa: S311

    def stop(self) -> None:
        """This function will let every thread end what it has begun."""
        self._stopped_at = time.monotonic()
        self.stopping.set()

    @property
    def patience_is_over(self) -> bool:
        """Whether what is still unanswered is given up, and so counted as lost."""
        return self.stopping.is_set() and (time.monotonic() - self._stopped_at > PATIENCE_SECONDS)

    def ask(
        self,
        what: str,
        wishes: Sequence[Wish],
        act: Act,
        in_the_calm: tuple[str, Act] | None = None,
    ) -> Sequence[str]:
        """This function will ask until it is answered, and give the answers; none when given up.

        A refusal that came after silence is kept for `settle`, which asks the same again or what
        `in_the_calm` says: the first request may still land.
        """
        for organization_id, key, micros in wishes:
            self.journal.asked(what, organization_id, key, micros)
        self.asked += len(wishes)
        silence = False
        while not self.patience_is_over:
            try:
                outcomes = act(wishes)
            except UNANSWERED as error:
                silence = silence or isinstance(error, OutcomeUnknown)
                self._note(what, wishes, error)
                time.sleep(random.uniform(0.05, 0.4))  # noqa: S311
                continue
            for wish, outcome in zip(wishes, outcomes, strict=True):
                self.journal.told(what, wish[0], wish[1], outcome)
                if silence and outcome != "OK":
                    asked_then, act_then = in_the_calm or (what, act)
                    self.doubtful.append((asked_then, wish, act_then))
            return outcomes
        return []

    def settle(self) -> int:
        """This function will ask once more, in the calm, for what was refused after silence."""
        doubtful, self.doubtful = self.doubtful, []
        for what, wish, act in doubtful:
            self.ask(what, [wish], act)
        return len(doubtful)

    def _note(self, what: str, wishes: Sequence[Wish], error: Exception) -> None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        for organization_id, key, _ in wishes:
            self.journal.unsure(what, organization_id, key, f"{type(cause).__name__}: {error}")
