"""The explanation of concurrent answers accepts what happened, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.db.support import at_once
from tests.model.books import Books, Operation
from tests.model.calls import Wallet
from tests.model.model import Answer
from tests.model.picture import Picture
from tests.model.serial import explain
from tests.support.world import make_organization

OK, NO = "OK", "INSUFFICIENT_FUNDS"


@pytest.fixture
def race(product, committed):
    """Two concurrent debits of 10 from a wallet with 10.

    The fixture returns the books before the debits, the answers, and the picture after them.
    """
    org = make_organization(product.database)
    books, picture = Books({org: Wallet("USD")}), Picture(committed, [org])
    amount = {"amount": 10, "currency": "USD"}
    fund = Operation("credit", org, {**amount, "key": "fund", "kind": "credit"})
    assert product.do(fund, 0) == books.do(fund, 0)
    debits = [
        Operation("debit", org, {**amount, "key": "plain"}),
        Operation("debit_now", org, {**amount, "key": "combined"}),
    ]
    answers = at_once([lambda one=one: product.do(one, 0) for one in debits])
    picture.refresh()
    return books, list(zip(debits, answers, strict=True)), picture


def test_order_is_found_when_one_of_two_debits_takes_the_last_money(race):
    books, asked, picture = race

    found = explain(books, asked, 0, picture)

    assert sorted(answer.code for _, answer in asked) == [NO, OK]
    assert found is not None
    assert not picture.shows(found)


def test_no_order_is_found_when_both_debits_took_the_last_money(race):
    books, asked, picture = race
    paid = next(answer for _, answer in asked if answer.code == OK)

    assert explain(books, [(one, paid) for one, _ in asked], 0, picture) is None


def test_no_order_is_found_when_neither_debit_took_the_money(race):
    books, asked, picture = race

    assert explain(books, [(one, Answer(NO)) for one, _ in asked], 0, picture) is None


def test_no_order_is_found_when_an_answer_has_an_impossible_balance(race):
    books, asked, picture = race
    wrong = [
        (one, replace(answer, balance=1) if answer.code == OK else answer) for one, answer in asked
    ]

    assert explain(books, wrong, 0, picture) is None


def test_no_order_is_found_when_an_entry_was_not_requested(race):
    books, asked, picture = race

    assert explain(books, [one for one in asked if one[1].code != OK], 0, picture) is None
