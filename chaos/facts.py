"""What the count reads when the run is at rest: database, providers and journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

import psycopg

from chaos.journal import RecordedTraffic
from db.address import driver_url
from db.engine import Database

Kind = Literal["lost", "doubled", "drift"]
KINDS: tuple[Kind, ...] = ("lost", "doubled", "drift")


@dataclass
class Customer:
    """One organization of the run, with its IDs at the providers."""

    organization_id: str
    #: Whether its wallet is nearly always empty, so that debits are refused and it goes below zero.
    poor: bool
    subaccount_sid: str
    #: The first campaign runs whenever the entitlement allows. The second one was paused by an
    #: operator and must stay paused.
    campaign_ids: list[str]
    #: Its first subscription; more may follow.
    subscription_id: str = ""
    number_id: str = ""


class Problem(NamedTuple):
    """One difference between expected and actual state, with its IDs.

    lost: a request or event was accepted but has no effect. doubled: there is an effect too many.
    drift: a wallet or a hash chain does not equal the sum of its effects. The evidence of a problem
    is every line that contains all of its `ids`.
    """

    kind: Kind
    text: str
    ids: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The subject of the problem: the first part of its text.

        Examples are debit, job, webhook and wallet.
        """
        return self.text.split(maxsplit=1)[0]


def pick_examples(problems: Iterable[Problem], kind: Kind, at_most: int) -> list[Problem]:
    """Pick problems of one kind, alternating between subjects, at least one of each.

    One failure can cause hundreds of problems about one subject. In their original order they would
    hide the few problems about another subject, which may be the cause.
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
    """Everything that the count compares. `rows` queries the database as its owner."""

    customers: list[Customer]
    recorded: RecordedTraffic
    database: Database
    rows: Callable[[str], list[tuple[Any, ...]]]
    captures: list[dict[str, Any]]
    #: The providers' current status of each organization's subscriptions, by ID, and of each
    #: subaccount.
    subscriptions: dict[str, dict[str, str]]
    subaccounts: dict[str, str]
    #: Every call at the sandbox's Vapi, by its ID.
    calls: dict[str, dict[str, Any]]
    #: Vapi's messages that were answered 2xx, each as a call's ID and a type. The sandbox keeps
    #: only the newest messages.
    accepted: set[tuple[str, str]]
    #: Monotonic time, in seconds, of each step forward of the database's clock.
    clock_forward_at: Sequence[float] = ()
    #: The highest load average of the run, per core.
    load_of_each_core: float = 0.0
    #: The net amount that each organization should have: balance less outstanding amount, in
    #: micros.
    expected: dict[str, int] = field(default_factory=dict)

    def add(self, organization_id: str, micros: int) -> None:
        """Add a movement to the organization's expected net amount."""
        self.expected[organization_id] = self.expected.get(organization_id, 0) + micros


@contextmanager
def read_facts(
    owner_url: str,
    database: Database,
    control: Callable[[str, str], Any],
    customers: list[Customer],
    recorded: RecordedTraffic,
    *,
    clock_forward_at: Sequence[float] = (),
    load_of_each_core: float = 0.0,
) -> Iterator[Facts]:
    """Read the facts, which no longer change. `control` queries the sandbox."""
    with psycopg.connect(driver_url(owner_url), autocommit=True) as owner:
        yield Facts(
            customers,
            recorded,
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
    """Count the cancelled subscriptions at PayPal."""
    return sum(list(theirs.values()).count("CANCELLED") for theirs in facts.subscriptions.values())


def _by_organization(subscriptions: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for one in subscriptions:
        found.setdefault(one["custom_id"], {})[one["id"]] = one["status"]
    return found
