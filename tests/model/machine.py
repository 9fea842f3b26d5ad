"""The machines: random sequences of all operations, in turn and at once, judged after each step.

In turn, every answer is the model's own, and the database shows what the model has. At once, real
threads ask, and some order of what they asked must explain all answers (tests/model/serial.py).
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule
from sqlalchemy import text
from sqlalchemy.orm import Session

from domain.verify import verify_ledger
from tests.db.support import at_once
from tests.domain.support import T0
from tests.model.asking import ARGUMENTS, Asking, arguments
from tests.model.books import Books, Operation
from tests.model.doors import Doors
from tests.model.model import Answer, Wallet
from tests.model.picture import Picture
from tests.model.serial import explain
from tests.world import make_organization

#: The currency of each of an example's wallets.
CURRENCIES = ("USD", "USD", "JPY")
#: These bring the posture in line themselves; all others leave a job for it.
_POSTURE_DONE = {"correct", "settle", "freeze_by_hand", "lift_by_hand", "override_by_hand"}
_ASKED = [st.tuples(st.just(name), arguments(name)) for name in ARGUMENTS]


class Ledger(RuleBasedStateMachine):
    """What both machines share: wallets with some money, the model of them, and the clock."""

    def __init__(self, doors: Doors, looking: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.doors = doors
        orgs = [_make_customer(doors, currency) for currency in CURRENCIES]
        self.asking = Asking(orgs, secrets.token_hex(6))
        pairs = zip(orgs, CURRENCIES, strict=True)
        self.books = Books({org: Wallet(currency) for org, currency in pairs})
        self.picture = Picture(looking, orgs)
        self.now = 0.0

    @initialize(
        funds=st.lists(st.integers(0, 100), min_size=3, max_size=3), limit=st.integers(0, 20)
    )
    def begin(self, funds: list[int], limit: int) -> None:
        self.picture.look()
        assert not self.picture.shows(self.books)
        for place, amount in enumerate(funds):
            if amount:
                asked = {"org": place, "key": "new", "amount": amount, "currency": "own"}
                self.carry_out(self.operation("credit", {**asked, "kind": "credit"}))
        if limit:
            self.carry_out(self.operation("set_debt_limit", {"org": 0, "limit": limit}))

    def operation(self, name: str, drawn: dict[str, Any]) -> Operation:
        return self.asking.operation(self.books, name, drawn, self.now)

    def carry_out(self, operation: Operation) -> Operation:
        """This function will do it in both, and compare the answers and all that is there after."""
        before, digest, jobs = self.books.copy(), self.picture.digest, dict(self.picture.jobs)
        digest = dict(digest)
        expected = self.books.do(operation, self.now)
        answer = self.doors.do(operation, self.now)
        assert answer == expected, f"{operation} was answered {answer}, not {expected}"
        self.picture.look()
        assert not self.picture.shows(self.books), operation
        if _changed_nothing(answer) and self.books == before and operation.name != "settle":
            assert self.picture.digest == digest, f"{operation} changed something: {answer}"
        for org in self.asking.orgs if operation.name not in _POSTURE_DONE else ():
            crossed = (before.wallets[org].available > 0) != (self.books.wallets[org].available > 0)
            more = self.picture.jobs[org] - jobs[org]
            assert more > 0 or not crossed, f"{operation} crossed zero and left no job"
        return operation

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def teardown(self) -> None:
        for org in self.asking.orgs:
            findings = list(verify_ledger(self.doors.database.run, organization_id=org))
            assert not findings, findings


class InTurn(Ledger):
    """One operation after the other. Each rule says which bug it hunts."""

    done = Bundle("done")

    def ask(self, name: str, drawn: dict[str, Any]) -> Operation:
        return self.carry_out(self.operation(name, drawn))

    @rule(target=done, drawn=arguments("credit"))
    def credit(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: money that comes in and does not pay what is owed, or lifts another's freeze."""
        return self.ask("credit", drawn)

    @rule(target=done, drawn=arguments("debit"))
    def debit(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a debit while frozen, out of what is held, or out of the debt limit."""
        return self.ask("debit", drawn)

    @rule(target=done, drawn=arguments("debit_now"))
    def debit_now(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a combined debit that is decided otherwise than one alone."""
        return self.ask("debit_now", drawn)

    @rule(target=done, drawn=arguments("debit_many"))
    def debit_many(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a row that sees another's money, order or key wrongly, or takes others with it."""
        return self.ask("debit_many", drawn)

    @rule(target=done, drawn=arguments("deduct_asset_cost"))
    def deduct_asset_cost(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: an asset bought on debt, or its key taken for a plain debit's."""
        return self.ask("deduct_asset_cost", drawn)

    @rule(target=done, drawn=arguments("correct"))
    def correct(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a correction past the limit or out of a hold, or one that forgets what is owed."""
        return self.ask("correct", drawn)

    @rule(target=done, drawn=arguments("settle"))
    def settle(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: facts that count twice or by their order, and one payment for two organizations."""
        return self.ask("settle", drawn)

    @rule(target=done, drawn=arguments("freeze"))
    def freeze(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a second placing that clears an override, or one cause taken for another."""
        return self.ask("freeze", drawn)

    @rule(target=done, drawn=arguments("unfreeze"))
    def unfreeze(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a lifting that takes other reasons or causes with it."""
        return self.ask("unfreeze", drawn)

    @rule(target=done, drawn=arguments("freeze_by_hand"))
    def freeze_by_hand(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a manual freeze that something but a person lifts."""
        return self.ask("freeze_by_hand", drawn)

    @rule(target=done, drawn=arguments("lift_by_hand"))
    def lift_by_hand(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: the subscription's freeze lifted by hand, or a refusal that leaves an entry."""
        return self.ask("lift_by_hand", drawn)

    @rule(target=done, drawn=arguments("override_by_hand"))
    def override_by_hand(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: an override that lasts at its end, or covers a reason it does not name."""
        return self.ask("override_by_hand", drawn)

    @rule(target=done, drawn=arguments("set_debt_limit"))
    def set_debt_limit(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a limit above which debt stands, or one that pays what is owed."""
        return self.ask("set_debt_limit", drawn)

    @rule(target=done, drawn=arguments("rebuild"))
    def rebuild(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a rebuilding of a sound wallet that changes it."""
        return self.ask("rebuild", drawn)

    @rule(target=done, drawn=arguments("reserve"))
    def reserve(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: two holds for a call, a hold for a settled one, or more held than there is."""
        return self.ask("reserve", drawn)

    @rule(target=done, drawn=arguments("extend"))
    def extend(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a step taken twice or skipped, an end brought nearer, a settled hold that grows."""
        return self.ask("extend", drawn)

    @rule(target=done, drawn=arguments("commit"))
    def commit(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a call charged twice, a hold not given back, a shortfall lost or past the limit."""
        return self.ask("commit", drawn)

    @rule(target=done, drawn=arguments("release"))
    def release(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a billed call's hold given back, or one given back twice."""
        return self.ask("release", drawn)

    @rule(target=done, drawn=arguments("expire"))
    def expire(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a hold expired before its end, after it was settled, or not at its end."""
        return self.ask("expire", drawn)

    @rule(operation=done)
    def repeat(self, operation: Operation) -> None:
        """Hunts: a repeat that moves money again, or answers by what is there now."""
        self.carry_out(operation)

    @rule(operation=done, change=st.sampled_from(["amount", "currency", "name", "kind", "org"]))
    def ask_otherwise(self, operation: Operation, change: str) -> None:
        """Hunts: a key that is taken again for another amount, currency, kind, verb or wallet."""
        values = dict(operation.values)
        if change == "amount" and "amount" in values:
            values["amount"] += 1
        elif change == "currency" and "currency" in values:
            values["currency"] = "JPY" if values["currency"] == "USD" else "USD"
        elif change == "kind" and "kind" in values:
            values["kind"] = "refund"
        elif change == "org" and "org" in values:
            values["org"] = self.asking.orgs[1]
        elif change == "name" and operation.name in _NAMESAKES:
            operation = replace(operation, name=_NAMESAKES[operation.name])
        self.carry_out(replace(operation, values=values))

    @rule(drawn=arguments("rebuild"), off=st.integers(-3, 3))
    def damage_and_rebuild(self, drawn: dict[str, Any], off: int) -> None:
        """Hunts: a rebuilding that believes the damaged row."""
        org = self.asking.orgs[drawn["org"]]

        def damage(session: Session) -> None:
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(
                text(
                    "UPDATE wallets SET balance_micros = balance_micros + 50 + :off,"
                    " held_micros = greatest(held_micros + :off, 0), owed_micros = 7,"
                    " entry_no = entry_no - 1 WHERE organization_id = :org"
                ),
                {"off": off, "org": org},
            )

        self.doors.owner.run(damage)
        self.carry_out(Operation("rebuild", org, {}))

    @rule(seconds=st.sampled_from([1, 29, 30, 60, 600]))
    def time_passes(self, seconds: int) -> None:
        """Hunts: what ends a moment too early or too late."""
        self.wait(seconds)


#: An operation by key, and another that must not be taken for it.
_NAMESAKES = {
    "debit": "deduct_asset_cost",
    "deduct_asset_cost": "debit",
    "debit_now": "debit",
    "correct": "debit",
}


class AtOnce(Ledger):
    """Batches from real threads, through their own transactions and one combiner together."""

    @rule(name=st.sampled_from(sorted(ARGUMENTS)), data=st.data())
    def alone(self, name: str, data: st.DataObject) -> None:
        """Brings the wallets into some state between the batches."""
        self.carry_out(self.operation(name, data.draw(arguments(name))))

    @rule(asked=st.lists(st.one_of(_ASKED), min_size=2, max_size=8), same=st.booleans())
    def at_once(self, asked: list[tuple[str, dict[str, Any]]], same: bool) -> None:
        """Hunts: two that both saw the last money, a replay missed, a settled hold settled again."""
        operations = [self.operation(name, drawn) for name, drawn in asked]
        if same:
            # Everything twice: what a provider does when it delivers at least once.
            operations = (operations * 2)[:8]
        self.together(operations)

    @rule(
        names=st.lists(st.sampled_from(["debit", "debit_now", "reserve"]), min_size=2, max_size=8),
        share=st.integers(1, 3),
    )
    def spend(self, names: list[str], share: int) -> None:
        """Hunts: the same money spent twice, by combined and by plain debits and by holds."""
        wallet = self.books.wallets[self.asking.orgs[0]]
        amount = max(wallet.available // share, 1)
        operations = []
        for place, name in enumerate(names):
            drawn = {"org": 0, "amount": amount, "currency": "own", "key": "new"}
            if name == "reserve":
                del drawn["key"]
                more = {"call": f"s{place % 3}", "provider_call": None, "expires_at": 60}
                drawn.update(more)
            operations.append(self.operation(name, drawn))
        self.together(operations)

    @rule(seconds=st.sampled_from([1, 30, 60]))
    def time_passes(self, seconds: int) -> None:
        """Lets holds and overrides come to their end."""
        self.wait(seconds)

    def together(self, operations: list[Operation]) -> None:
        """This function will ask all at once, and look for an order that explains the answers."""
        jobs = [lambda one=one: self.doors.do(one, self.now) for one in operations]
        answers = at_once(jobs)
        self.picture.look()
        asked = list(zip(operations, answers, strict=True))
        found = explain(self.books, asked, self.now, self.picture)
        told = "\n".join(f"{one} -> {answer}" for one, answer in asked)
        assert found is not None, f"no order explains these:\n{told}\nafter {self.books}"
        self.books = found


def _changed_nothing(answer: Answer) -> bool:
    return answer.code != "OK" or answer.replayed


def _make_customer(doors: Doors, currency: str) -> str:
    """An organization with an empty wallet and an active subscription."""
    org = make_organization(doors.database, currency=currency)
    doors.database.run(
        lambda session: session.execute(
            text(
                "INSERT INTO subscriptions (id, organization_id, provider, external_id, status,"
                " created_at) VALUES (:id, :org, 'paypal', :id, 'active', :now)"
            ),
            {"id": f"I-{org}", "org": org, "now": T0},
        )
    )
    return org
