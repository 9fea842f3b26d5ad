"""How the arguments of operations are drawn, so that they often meet a limit.

There are few wallets, calls, payments and keys, so that operations affect each other. An amount may
be drawn by name (all available money, one more). It becomes a number only when its wallet is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import strategies as st

from base.enums import FreezeReason
from tests.model.books import Books, Operation
from tests.model.model import AMOUNT_MAX


class Near(NamedTuple):
    """A named amount, and an offset from it."""

    name: str
    off: int


def _mostly(usual: Any, *rare: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 7 + list(rare))


_small = st.integers(1, 40)
_near = st.builds(
    Near,
    st.sampled_from(["available", "available", "headroom", "owed", "balance"]),
    st.integers(-1, 1),
)
#: Amounts that most operations refuse: at the bounds, and beyond what the database can store.
OUT_OF_BOUNDS = st.sampled_from([0, -1, AMOUNT_MAX, AMOUNT_MAX + 1, 2**70])
_amounts = st.one_of(_small, _near)
_orgs = st.sampled_from([0, 0, 0, 0, 1, 2])
#: A wallet with a live call, or a frozen one; the first wallet if there is none.
_calling = st.sampled_from(["calling", "calling", "calling", 0, 1])
_frozen = st.sampled_from(["frozen", "frozen", "frozen", 0, 1])
_keys = st.sampled_from(["new"] * 16 + ["k0", "k0", "k1", "call:c0:commit"])
_currencies = st.just("own")
_calls = st.sampled_from(["c0", "c1", "c2"])
#: A live call, if there is one.
_live_calls = st.sampled_from(["live", "live", "live", "c0", "c1"])
_provider_calls = st.sampled_from([None, None, None, None, "v0", "v1"])
_soon = st.sampled_from([0, 1, 30, 60, 60, 60])
_reasons = st.sampled_from([str(reason) for reason in FreezeReason])
#: An active freeze, if there is one.
_active_reason = st.one_of(st.just("standing"), st.just("standing"), _reasons)
_causes = st.sampled_from(["", "c0", "d1"])
_sums = st.integers(0, 60)

_by_key = {"org": _orgs, "key": _keys, "amount": _amounts, "currency": _currencies}
_rows = st.lists(st.fixed_dictionaries(_by_key), min_size=1, max_size=5)

_payment = {
    "org": _orgs,
    "payment": st.sampled_from(["paypal:P0", "paypal:P1", "stripe:P0"]),
    "captured": _sums,
    "refunded": _sums,
    "currency": _currencies,
}

#: The arguments of each operation.
ARGUMENTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "credit": {**_by_key, "kind": _mostly("credit", "topup")},
    "debit": _by_key,
    "debit_now": _by_key,
    "debit_many": {"rows": _rows},
    "deduct_asset_cost": _by_key,
    "correct": {**_by_key, "sign": st.sampled_from([1, -1])},
    "settle": _payment,
    "settle_alone": _payment,
    "freeze": {"org": _orgs, "reason": _reasons, "cause": _causes},
    "unfreeze": {"org": _frozen, "reason": _active_reason, "cause": st.one_of(st.none(), _causes)},
    "freeze_manually": {"org": _orgs},
    "lift_manually": {"org": _frozen, "reason": _active_reason},
    "override_manually": {
        "org": _frozen,
        "reason": _active_reason,
        "until": st.sampled_from([1, 30, 60, 30, 60, 0, 30 * 86_400, 30 * 86_400 + 1]),
    },
    "set_debt_limit": {"org": _orgs, "limit": st.one_of(_sums, _near)},
    "rebuild": {"org": _orgs},
    "reserve": {
        "org": _orgs,
        "call": _calls,
        "provider_call": _provider_calls,
        "amount": _amounts,
        "currency": _currencies,
        "expires_at": _soon,
    },
    "extend": {
        "org": _calling,
        "call": _live_calls,
        "nth": _mostly("next", "newest", 0, 1, 2),
        "amount": _amounts,
        "expires_at": _soon,
    },
    "commit": {"org": _calling, "call": _live_calls, "amount": _amounts, "currency": _currencies},
    "release": {"org": _calling, "call": _live_calls},
    "expire": {"org": _calling, "calls": st.lists(_calls, min_size=1, max_size=3)},
}


def arguments(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw an operation's arguments; named amounts are not numbers yet."""
    return st.fixed_dictionaries(ARGUMENTS[name])


@dataclass
class Asking:
    """The names of one example: turns drawn arguments into operations on its wallets."""

    orgs: list[str]
    #: Makes a payment's ID unique to this example, because it must be unique in the whole system.
    token: str
    _keys: int = 0

    def operation(self, books: Books, name: str, drawn: dict[str, Any], now: float) -> Operation:
        """Make an operation from drawn arguments, with the current state of the books."""
        values = dict(drawn)
        if name == "debit_many":
            rows = [self.operation(books, "debit", row, now) for row in values["rows"]]
            return Operation(name, None, {"rows": tuple(rows)})
        org = self._org(books, values.pop("org"))
        wallet = books.wallets[org]
        if values.get("call") == "live":
            live = [call for call, hold in wallet.holds.items() if hold.status == "open"]
            values["call"] = live[-1] if live else "c0"
        if values.get("reason") == "standing":
            values["reason"] = next(iter(wallet.freezes), ("manual", ""))[0]
        for field in ("amount", "limit"):
            if isinstance(values.get(field), Near):
                values[field] = self._number(books, org, values[field], values.get("call"))
        if values.get("key") == "new":
            self._keys += 1
            values["key"] = f"n{self._keys}"
        if values.get("currency") == "own":
            values["currency"] = wallet.currency
        values["amount"] = values.get("amount", 0) * values.pop("sign", 1)
        if "amount" not in drawn:
            del values["amount"]
        for field in ("expires_at", "until"):
            if field in values:
                values[field] += now
        if name == "expire":
            values["calls"] = tuple(values["calls"])
        if name == "extend" and isinstance(values["nth"], str):
            known = wallet.holds.get(values["call"])
            made = known.extensions if known else 0
            values["nth"] = made + (values["nth"] == "next")
        if name in ("settle", "settle_alone"):
            values["payment"] += self.token
            return Operation(name, None, {"org": org, **values})
        return Operation(name, org, values)

    def _org(self, books: Books, named: int | str) -> str:
        if isinstance(named, int):
            return self.orgs[named]
        wanted = [
            org
            for org, wallet in books.wallets.items()
            if (wallet.freezes if named == "frozen" else wallet.held)
        ]
        return (wanted or self.orgs)[0]

    def _number(self, books: Books, org: str, near: Near, call: str | None) -> int:
        wallet = books.wallets[org]
        hold = wallet.holds.get(call or "")
        own = hold.reserved if hold and hold.status == "open" else 0
        return (
            near.off
            + {
                "available": wallet.available,
                "headroom": wallet.available + wallet.debt_limit + own,
                "owed": wallet.owed,
                "balance": wallet.balance,
            }[near.name]
        )
