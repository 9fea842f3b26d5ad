"""What the count reads once the house is at rest: the database, the providers and the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import psycopg

from chaos.journal import Story
from db.address import driver_url
from db.engine import Database

Kind = Literal["lost", "doubled", "drift"]
KINDS: tuple[Kind, ...] = ("lost", "doubled", "drift")


@dataclass
class Customer:
    """One organization of the run: what it is called here and at the providers."""

    organization_id: str
    #: Whether its wallet is nearly always empty, so that debits are refused and it crosses zero.
    poor: bool
    subaccount_sid: str
    #: The first runs as the posture allows; the second was paused by hand and stays so.
    campaign_ids: list[str]
    #: Its first; more may follow.
    subscription_id: str = ""
    number_id: str = ""


class Problem(NamedTuple):
    """One thing that is not as it should be, with the ids to look for.

    lost: asked for or taken in, without its effect. doubled: an effect too many. drift: a wallet or
    a chain that is not what all effects come to. The evidence of a problem is whatever names all of
    its `ids`.
    """

    kind: Kind
    words: str
    ids: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Name what it concerns (debit, job, webhook, wallet …): the first of its words."""
        return self.words.split(maxsplit=1)[0]


def pick_examples(problems: Iterable[Problem], kind: Kind, at_most: int) -> list[Problem]:
    """Pick problems of one kind, each subject in turn, and at least one of every subject.

    One failure makes hundreds of problems about one subject. Taken in their order, they would hide
    the few about another subject, which may be the cause.
    """
    by_subject: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.kind == kind:
            by_subject.setdefault(problem.subject, []).append(problem)
    in_turn = [
        problem
        for turn in zip_longest(*by_subject.values())
        for problem in turn
        if problem is not None
    ]
    return in_turn[: max(at_most, len(by_subject))]


@dataclass
class Facts:
    """Everything the count compares; `rows` asks the database, as its owner."""

    customers: list[Customer]
    story: Story
    database: Database
    rows: Callable[[str], list[tuple[Any, ...]]]
    captures: list[dict[str, Any]]
    #: The providers' word for each organization's subscriptions, by id, and for each subaccount.
    subscriptions: dict[str, dict[str, str]]
    subaccounts: dict[str, str]
    #: Every call that rang at the sandbox's Vapi, by its id.
    calls: dict[str, dict[str, Any]]
    #: Of Vapi's messages that were answered 2xx, the newest: each a call's id and a type.
    accepted: set[tuple[str, str]]
    #: The machine's monotonic seconds of each step forward of the database's clock.
    clock_forward_at: Sequence[float] = ()
    #: The highest load average of the run, for each core.
    load_of_each_core: float = 0.0
    #: What each organization has come to: balance less what is owed, in micros.
    expected: dict[str, int] = field(default_factory=dict)

    def add(self, organization_id: str, micros: int) -> None:
        """This function will reckon a movement into what the organization has come to."""
        self.expected[organization_id] = self.expected.get(organization_id, 0) + micros


@contextmanager
def read_facts(
    owner_url: str,
    database: Database,
    control: Callable[[str, str], Any],
    customers: list[Customer],
    story: Story,
    *,
    clock_forward_at: Sequence[float] = (),
    load_of_each_core: float = 0.0,
) -> Iterator[Facts]:
    """This function will read what does not change any more. `control` asks the sandbox."""
    with psycopg.connect(driver_url(owner_url), autocommit=True) as owner:
        yield Facts(
            customers,
            story,
            database,
            lambda query: owner.execute(query).fetchall(),
            control("GET", "/paypal/captures"),
            _by_organization(control("GET", "/paypal/subscriptions")),
            {
                sid: control("GET", f"/twilio/subaccounts/{sid}")["status"]
                for sid in (one.subaccount_sid for one in customers)
            },
            {one["call"]["id"]: one for one in control("GET", "/vapi/calls")},
            {
                (one["event_id"], one["event_type"])
                for one in control("GET", "/deliveries?provider=vapi")
                if one["status_code"] is not None and 200 <= one["status_code"] < 300
            },
            clock_forward_at,
            load_of_each_core,
        )


def cancelled(facts: Facts) -> int:
    """This function will count the subscriptions that ended for good."""
    return sum(list(theirs.values()).count("CANCELLED") for theirs in facts.subscriptions.values())


def _by_organization(subscriptions: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for one in subscriptions:
        found.setdefault(one["custom_id"], {})[one["id"]] = one["status"]
    return found
