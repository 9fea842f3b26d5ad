"""Concurrent batches: some order of the operations must explain all answers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.db.support import at_once
from tests.model.asking import ARGUMENTS, arguments
from tests.model.books import Operation
from tests.model.machine import Ledger
from tests.model.serial import explain

_ASKED = [st.tuples(st.just(name), arguments(name)) for name in ARGUMENTS]
_ON_A_CALL = ["expire", "expire", "commit", "release", "extend", "credit", "debit_now"]


class AtOnce(Ledger):
    """Batches from real threads, each in its own transaction, with one debit combiner."""

    #: Number of calls and payments that rules created themselves, which gives each its own name.
    made = 0

    @rule(name=st.sampled_from(sorted(ARGUMENTS)), data=st.data())
    def alone(self, name: str, data: st.DataObject) -> None:
        """Bring the wallets into some state between the batches."""
        self.carry_out(self.operation(name, data.draw(arguments(name))))

    @rule(asked=st.lists(st.one_of(_ASKED), min_size=2, max_size=8), same=st.booleans())
    def at_once(self, asked: list[tuple[str, dict[str, Any]]], same: bool) -> None:
        """Detect money spent twice, a missed replay, or a hold settled twice."""
        operations = [self.operation(name, drawn) for name, drawn in asked]
        if same:
            # Every operation twice, as when a provider delivers at least once.
            operations = (operations * 2)[:8]
        self.together(operations)

    @rule(
        names=st.lists(st.sampled_from(["debit", "debit_now", "reserve"]), min_size=2, max_size=8),
        share=st.integers(1, 3),
    )
    def spend(self, names: list[str], share: int) -> None:
        """Detect money spent twice by combined debits, plain debits and holds."""
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

    @rule(
        sums=st.lists(st.tuples(st.integers(2, 60), st.integers(0, 20)), min_size=2, max_size=8),
        apart=st.booleans(),
    )
    def one_payment(self, sums: list[tuple[int, int]], apart: bool) -> None:
        """Detect payment facts that were read before the wait for another's lock."""
        self.made += 1
        its = {"org": 0, "payment": f"stripe:Q{self.made}", "currency": "own"}
        self.ask("settle_alone", {**its, "captured": 1, "refunded": 0})
        operations = []
        for place, (captured, refunded) in enumerate(sums):
            org = place % 2 if apart else 0
            facts = {**its, "org": org, "captured": captured, "refunded": refunded}
            operations.append(self.operation("settle_alone", facts))
        self.together(operations)

    @rule(
        names=st.lists(st.sampled_from(_ON_A_CALL), min_size=2, max_size=8),
        amount=st.integers(1, 30),
    )
    def one_call(self, names: list[str], amount: int) -> None:
        """Detect an ended hold that two operations both found open and settled."""
        self.made += 1
        its = {"org": 0, "call": f"y{self.made}"}
        sums = {"amount": amount, "currency": "own"}
        self.ask("credit", {**sums, "org": 0, "key": "new", "kind": "credit"})
        self.ask("reserve", {**its, **sums, "provider_call": None, "expires_at": 30})
        self.now += 30
        asked: dict[str, dict[str, Any]] = {
            "credit": {**sums, "org": 0, "key": "new", "kind": "credit"},
            "debit_now": {**sums, "org": 0, "key": "new"},
            "extend": {**its, "nth": "next", "amount": amount, "expires_at": 30},
            "commit": {**its, **sums},
            "release": its,
            "expire": {"org": 0, "calls": [its["call"]]},
        }
        self.together([self.operation(name, asked[name]) for name in names])

    @rule()
    def time_passes(self) -> None:
        """Let holds and overrides end."""
        self.wait_for_an_end(0)

    def together(self, operations: list[Operation]) -> None:
        """Run all operations concurrently, and find an order that explains the answers."""
        jobs = [lambda one=one: self.product.do(one, self.now) for one in operations]
        answers = at_once(jobs)
        asked = list(zip(operations, answers, strict=True))
        try:
            self.picture.refresh()
            found = explain(self.books, asked, self.now, self.picture)
            assert found is not None, "no order explains the answers"
        except AssertionError:
            # Print it now, because a repetition of the sequence may not fail again.
            print(f"at once, after {self.books}:", *asked, sep="\n")
            raise
        self.books = found
