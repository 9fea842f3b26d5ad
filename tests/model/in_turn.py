"""Sequential operations. Each rule names the bug that it detects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, rule
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.model.asking import ARGUMENTS, OUT_OF_BOUNDS, Near, arguments
from tests.model.books import Operation
from tests.model.machine import Ledger

_OWN = {"currency": "own"}
#: Seconds until a hold ends, and the cost of a call: often above its hold, up to the limit.
_ENDS = st.sampled_from([60, 30, 1])
_COSTS = st.one_of(
    st.integers(1, 40), st.builds(Near, st.just("headroom"), st.sampled_from([-1, 0, 1, 9]))
)
#: An operation with a key, and a different one that the same key must not match.
_NAMESAKES = {
    "debit": "deduct_asset_cost",
    "deduct_asset_cost": "debit",
    "debit_now": "debit",
    "correct": "debit",
}


class InTurn(Ledger):
    """Every operation by its own rule, and repeats of earlier operations."""

    done = Bundle("done")
    #: Number of calls and payments that rules created themselves, which gives each its own name.
    made = 0

    @rule(target=done, drawn=arguments("credit"))
    def credit(self, drawn: dict[str, Any]) -> Operation:
        """Detect a credit that skips the outstanding amount or lifts an unrelated freeze."""
        return self.ask("credit", drawn)

    @rule(target=done, drawn=arguments("debit"))
    def debit(self, drawn: dict[str, Any]) -> Operation:
        """Detect a debit while frozen, from held money, or from the debt limit."""
        return self.ask("debit", drawn)

    @rule(target=done, drawn=arguments("debit_now"))
    def debit_now(self, drawn: dict[str, Any]) -> Operation:
        """Detect a combined debit that is decided differently from a single one."""
        return self.ask("debit_now", drawn)

    @rule(target=done, drawn=arguments("debit_many"))
    def debit_many(self, drawn: dict[str, Any]) -> Operation:
        """Detect a row that sees wrong money, order or keys, or affects other rows."""
        return self.ask("debit_many", drawn)

    @rule(target=done, drawn=arguments("deduct_asset_cost"))
    def deduct_asset_cost(self, drawn: dict[str, Any]) -> Operation:
        """Detect an asset bought on debt, or its key matched with a plain debit's."""
        return self.ask("deduct_asset_cost", drawn)

    @rule(target=done, drawn=arguments("correct"))
    def correct(self, drawn: dict[str, Any]) -> Operation:
        """Detect a correction past the limit or from a hold, or with the debt unpaid."""
        return self.ask("correct", drawn)

    @rule(target=done, drawn=arguments("settle"))
    def settle(self, drawn: dict[str, Any]) -> Operation:
        """Detect facts that count twice or by order, or a payment of two organizations."""
        return self.ask("settle", drawn)

    @rule(target=done, drawn=arguments("settle_alone"))
    def settle_alone(self, drawn: dict[str, Any]) -> Operation:
        """Detect the same as `settle`, where only the ledger separates two settlements."""
        return self.ask("settle_alone", drawn)

    @rule(target=done, drawn=arguments("freeze"))
    def freeze(self, drawn: dict[str, Any]) -> Operation:
        """Detect a repeated freeze that clears an override, or two causes confused."""
        return self.ask("freeze", drawn)

    @rule(target=done, drawn=arguments("unfreeze"))
    def unfreeze(self, drawn: dict[str, Any]) -> Operation:
        """Detect an unfreeze that lifts other reasons or causes too."""
        return self.ask("unfreeze", drawn)

    @rule(target=done, drawn=arguments("freeze_manually"))
    def freeze_manually(self, drawn: dict[str, Any]) -> Operation:
        """Detect a manual freeze that is lifted by anything but an operator."""
        return self.ask("freeze_manually", drawn)

    @rule(target=done, drawn=arguments("lift_manually"))
    def lift_manually(self, drawn: dict[str, Any]) -> Operation:
        """Detect a manual lift of the subscription's freeze, or a refusal with an entry."""
        return self.ask("lift_manually", drawn)

    @rule(target=done, drawn=arguments("override_manually"))
    def override_manually(self, drawn: dict[str, Any]) -> Operation:
        """Detect an override still valid at its end, or valid for another reason."""
        return self.ask("override_manually", drawn)

    @rule(target=done, drawn=arguments("set_debt_limit"))
    def set_debt_limit(self, drawn: dict[str, Any]) -> Operation:
        """Detect a limit below the debt, or a limit that pays an outstanding amount."""
        return self.ask("set_debt_limit", drawn)

    @rule(target=done, drawn=arguments("rebuild"))
    def rebuild(self, drawn: dict[str, Any]) -> Operation:
        """Detect a rebuild that changes a correct wallet."""
        return self.ask("rebuild", drawn)

    @rule(target=done, drawn=arguments("reserve"))
    def reserve(self, drawn: dict[str, Any]) -> Operation:
        """Detect two holds for a call, a hold for a settled call, or too much held."""
        return self.ask("reserve", drawn)

    @rule(target=done, drawn=arguments("extend"))
    def extend(self, drawn: dict[str, Any]) -> Operation:
        """Detect a step repeated or skipped, an earlier end, or a settled hold extended."""
        return self.ask("extend", drawn)

    @rule(target=done, drawn=arguments("commit"))
    def commit(self, drawn: dict[str, Any]) -> Operation:
        """Detect a call charged twice, an unreturned hold, or a wrong shortfall."""
        return self.ask("commit", drawn)

    @rule(target=done, drawn=arguments("release"))
    def release(self, drawn: dict[str, Any]) -> Operation:
        """Detect a charged call's hold that is returned, or a hold returned twice."""
        return self.ask("release", drawn)

    @rule(target=done, drawn=arguments("expire"))
    def expire(self, drawn: dict[str, Any]) -> Operation:
        """Detect a hold expired too early, too late, or after it was settled."""
        return self.ask("expire", drawn)

    @rule(operation=done)
    def repeat(self, operation: Operation) -> None:
        """Detect a repeat that moves money again, or answers with the current state."""
        self.carry_out(operation)

    @rule(operation=done)
    def ask_otherwise(self, operation: Operation) -> None:
        """Detect a key reused for another amount, currency, kind, operation or wallet."""
        values = operation.values
        other = {
            "amount": values.get("amount", 0) + 1,
            "currency": "JPY" if values.get("currency") == "USD" else "USD",
            "kind": "refund",
            "org": self.asking.orgs[1],
        }
        for field in sorted(set(other) & set(values)):
            self.carry_out(replace(operation, values={**values, field: other[field]}))
        if operation.name in _NAMESAKES:
            self.carry_out(replace(operation, name=_NAMESAKES[operation.name]))

    @rule(drawn=arguments("rebuild"), off=st.integers(-3, 3))
    def damage_and_rebuild(self, drawn: dict[str, Any], off: int) -> None:
        """Detect a rebuild that trusts the damaged row."""
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

        self.product.owner.run(damage)
        self.carry_out(Operation("rebuild", org, {}))

    @rule(
        org=st.sampled_from([0, 0, 0, 1]),
        steps=st.lists(st.tuples(st.integers(1, 9), _ENDS), min_size=1, max_size=3),
        ending=st.sampled_from(["commit", "commit", "release", "time_passes", "none"]),
        cost=_COSTS,
    )
    def a_call(self, org: int, steps: list[tuple[int, int]], ending: str, cost: int | Near) -> None:
        """Detect a hold that loses an extension, or is settled for a wrong amount."""
        self.made += 1
        its = {"org": org, "call": f"x{self.made}"}
        funds = {"org": org, "key": "new", "amount": 20, "kind": "credit"}
        self.ask("credit", {**_OWN, **funds})
        for nth, (amount, end) in enumerate(steps):
            step = {**its, "amount": amount, "expires_at": end}
            if nth == 0:
                self.ask("reserve", {**_OWN, **step, "provider_call": None})
                continue
            self.ask("extend", {**step, "nth": nth})
            self.ask("extend", {**step, "nth": nth, "amount": amount + 1})
        if ending == "commit":
            self.ask("commit", {**_OWN, **its, "amount": cost})
        elif ending == "release":
            self.ask("release", its)
        elif ending == "time_passes":
            self.time_passes(0)

    @rule(
        org=st.sampled_from([0, 0, 0, 1]),
        rows=st.lists(
            st.tuples(st.integers(1, 9), st.sampled_from(["new", "new", "b0", "b1"])),
            min_size=2,
            max_size=5,
        ),
    )
    def a_batch(self, org: int, rows: list[tuple[int, str]]) -> None:
        """Detect a row that misses the debit or the key of an earlier row of its wallet."""
        its = {**_OWN, "org": org}
        self.ask("credit", {**its, "key": "new", "amount": 20, "kind": "credit"})
        drawn = [{**its, "amount": amount, "key": key} for amount, key in rows]
        self.ask("debit_many", {"rows": drawn})

    @rule(
        org=st.sampled_from([0, 0, 0, 1]),
        cause=st.sampled_from(["refund", "call"]),
        by_hand=st.booleans(),
        paid=st.sampled_from([Near("owed", -1), Near("owed", 0), Near("owed", 1)]),
    )
    def a_debt(self, org: int, cause: str, by_hand: bool, paid: Near) -> None:
        """Detect a debt not paid first, or a payment that lifts too many or few freezes."""
        self.made += 1
        its = {**_OWN, "org": org}
        if cause == "refund":
            facts = {**its, "payment": f"stripe:D{self.made}", "captured": 10}
            self.ask("settle", {**facts, "refunded": 0})
            self.ask("debit", {**its, "key": "new", "amount": Near("available", 0)})
            self.ask("settle", {**facts, "refunded": 10})
        else:
            cost = Near("headroom", 5)
            self.ask("commit", {**its, "call": f"d{self.made}", "amount": cost})
        if by_hand:
            self.ask("freeze_manually", {"org": org})
        self.ask("credit", {**its, "key": "new", "amount": paid, "kind": "credit"})

    @rule(name=st.sampled_from(sorted(ARGUMENTS)), data=st.data())
    def ask_nonsense(self, name: str, data: st.DataObject) -> None:
        """Detect an amount out of bounds or a wrong currency that is not refused first."""
        drawn = dict(data.draw(arguments(name)))
        for field in sorted({"amount", "limit", "captured", "currency"} & set(drawn)):
            if data.draw(st.booleans()):
                wrong = st.just("EUR") if field == "currency" else OUT_OF_BOUNDS
                drawn[field] = data.draw(wrong)
        self.ask(name, drawn)

    @rule(before=st.sampled_from([0, 0, 1]))
    def time_passes(self, before: int) -> None:
        """Detect a hold or an override that ends a moment too early or too late."""
        self.wait_for_an_end(before)
        for place, org in enumerate(self.asking.orgs):
            calls = self.books.wallets[org].holds
            if calls:
                self.ask("expire", {"org": place, "calls": list(calls)})
            if self.books.wallets[org].freezes:
                named = {"org": place, "key": "new", "amount": 1, "currency": "own"}
                self.ask("debit", named)
