"""What both state machines share: wallets, their model, and operations on both.

The product's answer must equal the model's, and the database must show exactly the model's state.
"""

from __future__ import annotations

import secrets
from itertools import chain
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from sqlalchemy import text
from sqlalchemy.orm import Session

from domain.organizations import create_organization
from domain.wallet.audit.chain import Finding
from domain.wallet.audit.verification import verify_ledger
from tests.domain.support import T0
from tests.model.asking import Asking
from tests.model.books import Books, Operation
from tests.model.calls import Wallet
from tests.model.model import Answer
from tests.model.picture import Picture
from tests.model.product import Product

#: The currencies of an example's wallets.
CURRENCIES = ("USD", "USD", "JPY")
#: These update the entitlement themselves, or `record_payment` does; others leave a job.
_POSTURE_DONE = {
    "correct",
    "settle",
    "settle_alone",
    "freeze_manually",
    "lift_manually",
    "override_manually",
}


class Ledger(RuleBasedStateMachine):
    """Wallets with some money, their model, and a time that only moves forward."""

    def __init__(self, product: Product, committed: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.product = product
        orgs = product.database.run(_make_customers)
        self.asking = Asking(orgs, secrets.token_hex(6))
        pairs = zip(orgs, CURRENCIES, strict=True)
        self.books = Books({org: Wallet(currency) for org, currency in pairs})
        self.picture = Picture(committed, orgs)
        self.now = 0.0

    @initialize(
        funds=st.lists(st.integers(0, 100), min_size=3, max_size=3),
        limit=st.integers(0, 20),
        calls=st.booleans(),
    )
    def begin(self, funds: list[int], limit: int, calls: bool) -> None:
        self.picture.refresh()
        differences = self.picture.shows(self.books)
        assert not differences, differences
        named: dict[str, Any] = {"key": "new", "currency": "own", "kind": "credit"}
        for place, amount in enumerate(funds):
            if amount:
                self.ask("credit", {**named, "org": place, "amount": amount})
        if limit:
            self.ask("set_debt_limit", {"org": 0, "limit": limit})
        if calls and funds[0] > 1:
            del named["key"], named["kind"]
            call = {"org": 0, "call": "c0", "provider_call": None, "expires_at": 60}
            self.ask("reserve", {**named, **call, "amount": funds[0] // 2})

    def ask(self, name: str, drawn: dict[str, Any]) -> Operation:
        return self.carry_out(self.operation(name, drawn))

    def operation(self, name: str, drawn: dict[str, Any]) -> Operation:
        return self.asking.operation(self.books, name, drawn, self.now)

    def carry_out(self, operation: Operation) -> Operation:
        """Carry out an operation in both, and compare the answers and the states."""
        before, jobs = self.books.copy(), dict(self.picture.jobs)
        digest = dict(self.picture.digest)
        expected = self.books.do(operation, self.now)
        answer = self.product.do(operation, self.now)
        assert answer == expected, f"{operation} was answered {answer}, not {expected}"
        self.picture.refresh()
        differences = self.picture.shows(self.books)
        assert not differences, f"after {operation}: {differences}"
        if (
            _changed_nothing(answer)
            and self.books == before
            and not operation.name.startswith("settle")
        ):
            assert self.picture.digest == digest, f"{operation} changed something: {answer}"
        for org in self.asking.orgs if operation.name not in _POSTURE_DONE else ():
            crossed = (before.wallets[org].available > 0) != (self.books.wallets[org].available > 0)
            more = self.picture.jobs[org] - jobs[org]
            assert more > 0 or not crossed, f"{operation} crossed zero and left no job"
        return operation

    def wait_for_an_end(self, before: float) -> None:
        """Let time pass until a hold or an override ends, or until just before."""
        wallets = self.books.wallets.values()
        ends = [hold.expires_at for one in wallets for hold in one.holds.values()]
        ends += [until for one in wallets for until in one.freezes.values() if until]
        self.now = min((end - before for end in ends if end - before > self.now), default=self.now)

    def teardown(self) -> None:
        def verify(session: Session) -> list[Finding]:
            found = [
                verify_ledger(lambda read: read(session), organization_id=org)
                for org in self.asking.orgs
            ]
            return list(chain(*found))

        findings = self.product.database.run(verify)
        assert not findings, findings


def _changed_nothing(answer: Answer) -> bool:
    return answer.code != "OK" or answer.replayed


def _make_customers(session: Session) -> list[str]:
    """Create organizations with an empty wallet and an active subscription."""
    orgs = []
    for currency in CURRENCIES:
        org = create_organization(session, name="Acme", currency=currency, now=T0)
        session.execute(
            text(
                "INSERT INTO subscriptions (id, organization_id, provider, external_id, status,"
                " created_at) VALUES (:id, :org, 'paypal', :id, 'active', :now)"
            ),
            {"id": f"I-{org}", "org": org, "now": T0},
        )
        orgs.append(org)
    return orgs
