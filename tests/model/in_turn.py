"""One operation after the other. Each rule says which bug it hunts."""

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
#: In how many seconds a hold ends, and what a call costs: often more than it holds, to the limit.
_ENDS = st.sampled_from([60, 30, 1])
_COSTS = st.one_of(
    st.integers(1, 40), st.builds(Near, st.just("headroom"), st.sampled_from([-1, 0, 1, 9]))
)
#: An operation by key, and another that must not be taken for it.
_NAMESAKES = {
    "debit": "deduct_asset_cost",
    "deduct_asset_cost": "debit",
    "debit_now": "debit",
    "correct": "debit",
}


class InTurn(Ledger):
    """Every operation by a rule of its own, and repeats of what was asked before."""

    done = Bundle("done")
    #: Calls and payments that rules made for themselves, each with a name of its own.
    made = 0

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
        """Hunts: facts that count twice or by their order, a payment of two organizations."""
        return self.ask("settle", drawn)

    @rule(target=done, drawn=arguments("settle_alone"))
    def settle_alone(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: as settle, where nothing but the ledger itself stands between two of them."""
        return self.ask("settle_alone", drawn)

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
        """Hunts: a step taken twice or skipped, an end brought nearer, a settled hold growing."""
        return self.ask("extend", drawn)

    @rule(target=done, drawn=arguments("commit"))
    def commit(self, drawn: dict[str, Any]) -> Operation:
        """Hunts: a call charged twice, a hold not given back, a shortfall lost or over limit."""
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

    @rule(operation=done)
    def ask_otherwise(self, operation: Operation) -> None:
        """Hunts: a key that is taken again for another amount, currency, kind, verb or wallet."""
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

    @rule(
        org=st.sampled_from([0, 0, 0, 1]),
        steps=st.lists(st.tuples(st.integers(1, 9), _ENDS), min_size=1, max_size=3),
        ending=st.sampled_from(["commit", "commit", "release", "time_passes", "none"]),
        cost=_COSTS,
    )
    def a_call(self, org: int, steps: list[tuple[int, int]], ending: str, cost: int | Near) -> None:
        """Hunts: a hold that loses a step on its way, or is settled for other than it holds."""
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
        """Hunts: a row that does not see what an earlier one of its wallet took, or its key."""
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
        """Hunts: a debt not paid first, one that takes another freeze along or leaves its own."""
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
            self.ask("freeze_by_hand", {"org": org})
        self.ask("credit", {**its, "key": "new", "amount": paid, "kind": "credit"})

    @rule(name=st.sampled_from(sorted(ARGUMENTS)), data=st.data())
    def ask_nonsense(self, name: str, data: st.DataObject) -> None:
        """Hunts: amounts beyond the bounds, and another currency, that are not refused first."""
        drawn = dict(data.draw(arguments(name)))
        for field in sorted({"amount", "limit", "captured", "currency"} & set(drawn)):
            if data.draw(st.booleans()):
                wrong = st.just("EUR") if field == "currency" else OUT_OF_BOUNDS
                drawn[field] = data.draw(wrong)
        self.ask(name, drawn)

    @rule(before=st.sampled_from([0, 0, 1]))
    def time_passes(self, before: int) -> None:
        """Hunts: a hold or an override that ends a moment too early or too late."""
        self.wait_for_an_end(before)
        for place, org in enumerate(self.asking.orgs):
            calls = self.books.wallets[org].holds
            if calls:
                self.ask("expire", {"org": place, "calls": list(calls)})
            if self.books.wallets[org].freezes:
                named = {"org": place, "key": "new", "amount": 1, "currency": "own"}
                self.ask("debit", named)
