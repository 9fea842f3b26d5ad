"""Assets are paid in full, at once and once, and never from a debt limit."""

from __future__ import annotations

import pytest

from base.money import AMOUNT_MICROS_MAX
from domain.wallet.ledger import WalletOutcome
from tests.db.support import at_once
from tests.domain.support import credit, debit, entries, later
from tests.domain.wallet.hold_support import buy, everything, money, reserve, set_limit
from tests.domain.wallet.support import bare_organization, freeze


def test_asset_is_paid_by_an_entry_that_names_it(shared, funded):
    assert buy(shared, funded, 30, "n1") == WalletOutcome("OK", False, 2, 70, 0, 0, 100)
    entry = entries(shared, funded)[-1]
    assert (entry.kind, entry.direction, entry.amount_micros) == ("asset", "debit", 30)
    assert (entry.counter_account, entry.note) == ("assets", "+15005550006")
    assert money(shared, funded) == (70, 0, 0)


def test_an_asset_takes_the_last_micro_available_and_no_debt(shared, funded):
    set_limit(shared, funded, 1_000)
    reserve(shared, funded, 40)
    before = everything(shared, funded)
    assert buy(shared, funded, 61, "n1").outcome == "INSUFFICIENT_FUNDS"
    assert everything(shared, funded) == before
    assert buy(shared, funded, 60, "n1").available_micros == 0
    assert buy(shared, funded, 1, "n2").outcome == "INSUFFICIENT_FUNDS"


@pytest.mark.parametrize(
    ("amount", "more", "code"),
    [
        (0, {}, "INVALID_AMOUNT"),
        (-5, {}, "INVALID_AMOUNT"),
        (AMOUNT_MICROS_MAX + 1, {}, "INVALID_AMOUNT"),
        (10**30, {}, "INVALID_AMOUNT"),
        (5, {"currency": "EUR"}, "CURRENCY_MISMATCH"),
    ],
)
def test_a_refused_purchase_changes_nothing_and_its_key_is_free(shared, funded, amount, more, code):
    before = everything(shared, funded)
    assert buy(shared, funded, amount, "n1", **more).outcome == code
    assert everything(shared, funded) == before
    assert not buy(shared, funded, 5, "n1").replayed


def test_purchase_is_refused_without_a_wallet_or_while_frozen(shared, funded):
    freeze(shared, funded)
    before = everything(shared, funded)
    assert buy(shared, funded, 5, "n1").outcome == "FROZEN_WALLET"
    assert everything(shared, funded) == before
    assert buy(shared, bare_organization(shared), 5, "n1").outcome == "WALLET_NOT_FOUND"


def test_purchase_is_replayed_and_a_different_one_under_its_key_conflicts(shared, funded):
    first = buy(shared, funded, 30, "n1")
    debit(shared, funded, 70)
    before = everything(shared, funded)
    again = buy(shared, funded, 30, "n1", asset="told otherwise", now=later(9_999))
    assert (again.ok, again.replayed, again.entry_no) == (True, True, first.entry_no)
    assert again.balance_micros == 70
    assert buy(shared, funded, 31, "n1").outcome == "IDEMPOTENCY_CONFLICT"
    assert debit(shared, funded, 30, key="n1").outcome == "IDEMPOTENCY_CONFLICT"
    assert credit(shared, funded, 30, key="n1").outcome == "IDEMPOTENCY_CONFLICT"
    assert everything(shared, funded) == before


def test_concurrent_requests_for_one_purchase_are_charged_once(shared, funded):
    answers = at_once([lambda: buy(shared, funded, 30, "n1")] * 12)
    assert [one.outcome for one in answers] == ["OK"] * 12
    assert sum(not one.replayed for one in answers) == 1
    assert money(shared, funded) == (70, 0, 0)
