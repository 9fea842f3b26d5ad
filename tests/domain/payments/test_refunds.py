"""Refunds of a payment add up, each once by its state, in any order of reports."""

from __future__ import annotations

import itertools
import secrets
from datetime import datetime

import pytest

from base.enums import RefundState
from base.facts import RefundFacts
from base.money import AMOUNT_MICROS_MAX
from base.outcomes import Refused
from domain.payments import settlements
from domain.wallet import operations as wallet
from tests.db.support import at_once, with_retries
from tests.domain.support import (
    T0,
    active_freezes,
    debit,
    figures,
    later,
    money_state,
    moves,
    payment,
    record_payment,
    staged,
)
from tests.support.world import make_organization

PENDING, COMPLETED, FAILED = RefundState.PENDING, RefundState.COMPLETED, RefundState.FAILED


@pytest.fixture
def paid(shared, org):
    """The ID of a credited payment of 100."""
    one = f"P-{secrets.token_hex(6)}"
    assert settle_payment(shared, org, one).ok
    return one


def settle_payment(database, org, one, captured=100, refunded=0, at: datetime | None = T0):
    facts = payment(one, org, captured, refunded, stated_at=at)
    return database.run(lambda session: wallet.settle(session, org, facts, T0))


def refund(name, amount, state=COMPLETED, total=None, made=10, at=10):
    return RefundFacts(name, amount, total, state, later(made), None if at is None else later(at))


def give_back(database, org, one, facts, currency="USD"):
    about = payment(one, org, 100, currency=currency)
    return database.run(lambda s: settlements.settle_refund(s, org, about, facts, T0))


def test_refunds_without_a_cumulative_figure_add_up(shared, org, paid):
    assert give_back(shared, org, paid, refund(f"{paid}-A", 30)).balance_micros == 70
    assert give_back(shared, org, paid, refund(f"{paid}-B", 20)).balance_micros == 50
    again = give_back(shared, org, paid, refund(f"{paid}-A", 30))
    assert (again.replayed, again.balance_micros) == (True, 50)
    assert moves(shared, org) == [("topup", 100), ("refund", 30), ("refund", 20)]


def test_cumulative_total_includes_a_refund_not_reported_yet(shared, org, paid):
    # Given a report of the second refund only, with a cumulative total of 50
    assert give_back(shared, org, paid, refund(f"{paid}-B", 20, total=50)).balance_micros == 50
    # When the first refund is reported too, Then nothing more is taken
    assert give_back(shared, org, paid, refund(f"{paid}-A", 30, total=30)).balance_micros == 50


def test_a_pending_refund_that_fails_is_given_back(shared, org, paid):
    assert give_back(shared, org, paid, refund(f"{paid}-A", 30, PENDING)).balance_micros == 70
    failed = give_back(shared, org, paid, refund(f"{paid}-A", 30, FAILED, at=20))
    assert (failed.replayed, failed.balance_micros) == (False, 100)
    assert moves(shared, org) == [("topup", 100), ("refund", 30), ("give_back", 30)]


def test_a_refund_that_failed_does_not_stay_in_a_cumulative_figure(shared, org, paid):
    # Given a pending full refund, which the payment itself shows as refunded, and its failure
    give_back(shared, org, paid, refund(f"{paid}-A", 100, PENDING, total=100))
    settle_payment(shared, org, paid, refunded=100, at=later(10))
    assert figures(shared, org) == (0, 0)
    # When it fails, Then all is credited, also while the payment's own report is the old one
    give_back(shared, org, paid, refund(f"{paid}-A", 100, FAILED, total=100, at=20))
    assert figures(shared, org) == (100, 0)
    # And the payment's newer report is believed
    settle_payment(shared, org, paid, refunded=0, at=later(30))
    settle_payment(shared, org, paid, refunded=100, at=later(10))
    assert figures(shared, org) == (100, 0)


def test_a_figure_stated_at_the_instant_of_a_failure_is_reduced_by_it(shared, org, paid):
    give_back(shared, org, paid, refund(f"{paid}-A", 100, PENDING))
    settle_payment(shared, org, paid, refunded=100, at=later(20))
    assert figures(shared, org) == (0, 0)
    give_back(shared, org, paid, refund(f"{paid}-A", 100, FAILED, at=20))
    assert figures(shared, org) == (100, 0)


def test_a_figure_stated_after_a_failure_is_not_reduced_by_it(shared, org, paid):
    give_back(shared, org, paid, refund(f"{paid}-A", 30, FAILED, at=20))
    # 40 were refunded in total, of which only this refund of 10 was reported
    give_back(shared, org, paid, refund(f"{paid}-B", 10, total=40, made=30, at=30))
    assert figures(shared, org) == (60, 0)


READINGS = [
    ("A", 30, PENDING, 30, 10, 10),
    ("A", 30, FAILED, 30, 10, 40),
    ("B", 20, PENDING, 50, 20, 20),
    ("B", 20, COMPLETED, 50, 20, 30),
    ("P", 0),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(READINGS))))[::4])
def test_refunds_leave_the_same_in_any_order_of_reports(shared, order):
    # Finds a late state that wins, a forgotten failure, and a maximum used as a sum
    org, one = make_organization(shared), f"P-{secrets.token_hex(6)}"
    settle_payment(shared, org, one, at=None)
    for number in (*order, *order[:2]):
        name, *rest = READINGS[number]
        if name == "P":
            assert settle_payment(shared, org, one, refunded=0, at=later(5)).ok
        else:
            amount, state, total, made, at = rest
            facts = refund(f"{one}-{name}", amount, state, total, made, at)
            assert give_back(shared, org, one, facts).ok
    assert figures(shared, org) == (80, 0)


def test_of_one_instant_and_without_any_the_more_final_state_counts(shared, org, paid):
    for at in (10, None):
        name = f"{paid}-{at}"
        for state in (COMPLETED, FAILED, PENDING):
            give_back(shared, org, paid, refund(name, 30, state, at=at))
        assert figures(shared, org) == (100, 0)


def test_refund_reported_before_its_payment_takes_nothing_until_then(shared, org):
    one = f"P-{secrets.token_hex(6)}"
    assert give_back(shared, org, one, refund(f"{one}-A", 40)).balance_micros == 0
    assert settle_payment(shared, org, one).balance_micros == 60
    assert moves(shared, org) == [("topup", 60)]


def test_refunds_never_take_more_than_was_captured(shared, org, paid):
    give_back(shared, org, paid, refund(f"{paid}-A", 100))
    give_back(shared, org, paid, refund(f"{paid}-B", AMOUNT_MICROS_MAX))
    assert figures(shared, org) == (0, 0)


def test_refund_of_spent_money_is_outstanding_until_it_fails(shared, org, paid):
    debit(shared, org, 80)
    give_back(shared, org, paid, refund(f"{paid}-A", 100, PENDING))
    assert (figures(shared, org), active_freezes(shared, org)) == ((0, 80), {"refund_shortfall"})
    give_back(shared, org, paid, refund(f"{paid}-A", 100, FAILED, at=20))
    assert (figures(shared, org), active_freezes(shared, org)) == ((20, 0), set())


def test_refunds_of_one_payment_at_once_add_up(shared, org, paid):
    jobs = [
        lambda n=n: give_back(shared, org, paid, refund(f"{paid}-{n}", 10)) for n in range(5)
    ] * 2
    assert all(one.ok for one in at_once([with_retries(job) for job in jobs]))
    assert figures(shared, org) == (50, 0)


@pytest.mark.parametrize(
    ("amount", "total", "currency", "code"),
    [
        (-1, None, "USD", "INVALID_AMOUNT"),
        (AMOUNT_MICROS_MAX + 1, None, "USD", "INVALID_AMOUNT"),
        (1, -1, "USD", "INVALID_AMOUNT"),
        (1, 10**30, "USD", "INVALID_AMOUNT"),
        (1, None, "EUR", "CURRENCY_MISMATCH"),
    ],
)
def test_a_refund_that_is_refused_changes_nothing(shared, org, paid, amount, total, currency, code):
    before = money_state(shared, org)
    outcome = give_back(shared, org, paid, refund(f"{paid}-A", amount, total=total), currency)
    assert outcome.outcome == code
    assert money_state(shared, org) == before


def test_a_refund_known_as_another_payments_is_a_conflict(shared, org, paid):
    other = f"P-{secrets.token_hex(6)}"
    settle_payment(shared, org, other)
    give_back(shared, org, paid, refund(f"{paid}-A", 30))
    moved = figures(shared, org)
    outcome = give_back(shared, org, other, refund(f"{paid}-A", 30, FAILED, at=99))
    assert outcome.outcome == "IDEMPOTENCY_CONFLICT"
    assert figures(shared, org) == moved


def test_a_payment_of_another_organization_cannot_be_refunded_here(shared, org, paid):
    other = make_organization(shared)
    outcome = give_back(shared, other, paid, refund(f"{paid}-A", 30))
    assert outcome.outcome == "IDEMPOTENCY_CONFLICT"
    assert figures(shared, org) == (100, 0)


def test_failed_refund_is_refused_when_the_wallet_is_full(shared, org, paid):
    # Given a refund, and a wallet that other payments have filled to its limit since
    give_back(shared, org, paid, refund(f"{paid}-A", 100, PENDING))
    for _ in range(900):
        full = settle_payment(shared, org, f"P-{secrets.token_hex(6)}", AMOUNT_MICROS_MAX)
        assert full.ok
    before = money_state(shared, org)
    # When the refund fails
    outcome = give_back(shared, org, paid, refund(f"{paid}-A", 100, FAILED, at=20))
    # Then it is refused, and its state is not kept either: it can be reported again later
    assert outcome.outcome == "INVALID_AMOUNT"
    assert money_state(shared, org) == before


# The domain's functions


def test_pending_refund_is_refreshed_later_and_a_settled_one_is_not(shared, org, paid):
    for state, looks in ((COMPLETED, 0), (PENDING, 1)):
        facts = refund(f"{paid}-{state}", 10, state)
        record_payment(shared, payment(paid, org, 100, refund=facts))
        jobs = staged(shared, org, "look_at_payment")
        assert len(jobs) == looks
    assert jobs[0].kwargs["external_id"] == f"{paid}-pending"
    # The two instants are read at slightly different moments
    assert round((jobs[0].due_at - jobs[0].staged_at).total_seconds()) == 6 * 3_600


def test_refused_refund_is_raised_with_its_code_and_keeps_nothing(shared, org, paid):
    before = money_state(shared, org)
    with pytest.raises(Refused) as caught:
        record_payment(shared, payment(paid, org, 100, refund=refund(f"{paid}-A", -1)))
    assert caught.value.code == "INVALID_AMOUNT"
    assert money_state(shared, org) == before
