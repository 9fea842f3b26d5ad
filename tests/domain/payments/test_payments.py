"""A payment moves its money once, in any order and number of reports."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from base.enums import FreezeReason, Provider
from base.facts import PaymentReport
from base.money import AMOUNT_MICROS_MAX
from base.operators import Operator
from base.outcomes import Refused
from db.busy import DatabaseBusy
from db.models import Job
from domain.payments import payments
from domain.payments.payments import NotATopUp, PaymentNotOurs
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallet
from domain.wallet import queries as wallet_queries
from tests.db.support import (
    Impatient,
    at_once,
    holding,
    one_behind_the_other,
    wait_for_waiters,
)
from tests.domain.support import (
    T0,
    active_freezes,
    credit,
    debit,
    figures,
    money_state,
    moves,
    payment,
    record_payment,
    subscribe,
)
from tests.support.world import make_organization


def new_id():
    return f"P-{secrets.token_hex(6)}"


def settle(database, org, external_id, captured, refunded=0, currency="USD"):
    facts = payment(external_id, org, captured, refunded, currency)
    return database.run(lambda session: wallet.settle(session, org, facts, T0))


def test_captured_payment_credits_once_however_often_it_is_reported(shared, org):
    one = new_id()
    first = settle(shared, org, one, 100)
    assert (first.outcome, first.replayed, first.balance_micros) == ("OK", False, 100)
    before = money_state(shared, org)
    again = settle(shared, org, one, 100)
    assert (again.outcome, again.replayed, again.balance_micros) == ("OK", True, 100)
    assert money_state(shared, org)[:4] == before[:4]
    assert moves(shared, org) == [("topup", 100)]


def test_five_workers_that_settle_one_payment_at_once_credit_once(shared, org):
    one = new_id()
    outcomes = at_once([lambda: settle(shared, org, one, 100)] * 5)
    assert [getattr(x, "outcome", repr(x)) for x in outcomes] == ["OK"] * 5
    assert sum(not x.replayed for x in outcomes) == 1
    assert figures(shared, org) == (100, 0)


def test_a_pending_capture_moves_nothing_until_the_money_is_ours(shared, org):
    one = new_id()
    assert settle(shared, org, one, 0).balance_micros == 0
    assert settle(shared, org, one, 100).balance_micros == 100


def test_partial_refunds_are_cumulative_and_an_older_total_is_ignored(shared, org):
    one = new_id()
    settle(shared, org, one, 100)
    assert settle(shared, org, one, 100, 30).balance_micros == 70
    assert settle(shared, org, one, 100, 100).balance_micros == 0
    assert settle(shared, org, one, 100, 30).balance_micros == 0
    assert settle(shared, org, one, 100, 0).balance_micros == 0
    assert moves(shared, org) == [("topup", 100), ("refund", 30), ("refund", 70)]


def test_refund_known_before_its_capture_leaves_only_the_rest(shared, org):
    one = new_id()
    assert settle(shared, org, one, 100, 40).balance_micros == 60
    assert settle(shared, org, one, 100, 0).balance_micros == 60
    two = new_id()
    assert settle(shared, org, two, 0, 40).balance_micros == 60
    assert settle(shared, org, two, 100, 40).balance_micros == 120


def test_more_refunded_than_captured_takes_no_more_than_was_given(shared, org):
    one, two = new_id(), new_id()
    settle(shared, org, two, 500)
    settle(shared, org, one, 100)
    assert settle(shared, org, one, 100, 250).balance_micros == 500


@st.composite
def report_sequences(draw):
    """Draw cumulative states of one payment, each at least once, in any order."""
    captured = draw(st.integers(1, 10**9))
    parts = draw(st.lists(st.integers(1, 10**9), max_size=4))
    states, refunded = [(0, 0), (captured, 0)], 0
    for part in parts:
        refunded = min(captured, refunded + part)
        states.append((captured, refunded))
    reports = draw(st.permutations(states + draw(st.lists(st.sampled_from(states), max_size=3))))
    return reports, captured - refunded


@settings(max_examples=40, deadline=None)
@given(report_sequences())
def test_payment_moves_the_same_money_in_any_order_of_reports(shared, sequence):
    reports, left = sequence
    org, one = make_organization(shared), new_id()

    def work(session):
        for captured, refunded in reports:
            facts = payment(one, org, captured, refunded)
            assert wallet.settle(session, org, facts, T0).ok

    shared.run(work)
    assert figures(shared, org) == (left, 0)
    assert shared.run(lambda session: wallet_queries.entries_sum(session, org)) == left


@settings(max_examples=40, deadline=None)
@given(report_sequences(), st.data())
def test_refunds_take_the_same_total_in_any_order_and_spending(shared, sequence, data):
    # Finds a refund that takes too little after spending, takes twice, or makes the balance
    # negative
    reports, left = sequence
    org, one = make_organization(shared), new_id()
    spent = 0
    for captured, refunded in reports:
        assert settle(shared, org, one, captured, refunded).ok
        balance, owed = figures(shared, org)
        assert balance >= 0
        wanted = data.draw(st.integers(0, balance))
        if wanted and debit(shared, org, wanted).ok:
            spent += wanted
        # Then there is a freeze exactly while an amount is outstanding
        assert (active_freezes(shared, org) == {"refund_shortfall"}) == (owed > 0)
    balance, owed = figures(shared, org)
    assert balance - owed == left - spent


def test_refund_of_spent_money_is_outstanding_and_freezes(shared, org):
    one = new_id()
    settle(shared, org, one, 100)
    debit(shared, org, 80)
    outcome = settle(shared, org, one, 100, 100)
    assert (outcome.outcome, outcome.balance_micros, outcome.owed_micros) == ("OK", 0, 80)
    assert active_freezes(shared, org) == {"refund_shortfall"}
    assert moves(shared, org)[2:] == [("refund", 20), ("owed", 80), ("freeze", 0)]
    assert debit(shared, org, 1).outcome == "FROZEN_WALLET"


def test_next_top_up_pays_the_outstanding_amount_and_lifts_its_freeze(shared, org):
    # Given 80 outstanding, and a manual and a dispute freeze besides that of the shortfall
    one = new_id()
    settle(shared, org, one, 100)
    debit(shared, org, 80)
    settle(shared, org, one, 100, 100)
    for reason in (FreezeReason.MANUAL, FreezeReason.DISPUTE):
        shared.run(
            lambda s, r=reason: wallet_freezes.freeze(
                s, org, r, operator=Operator("a", "b"), now=T0
            )
        )
    # When too little is paid, and then the rest
    settle(shared, org, new_id(), 50)
    assert figures(shared, org) == (0, 30)
    assert active_freezes(shared, org) == {"refund_shortfall", "manual", "dispute"}
    settle(shared, org, new_id(), 50)
    # Then the outstanding amount is paid first, its freeze is lifted, and the others stay
    assert figures(shared, org) == (20, 0)
    assert active_freezes(shared, org) == {"manual", "dispute"}


@pytest.mark.parametrize("by", ["credit", "correct"])
def test_every_credit_pays_the_outstanding_amount_first(shared, org, by):
    one = new_id()
    settle(shared, org, one, 100)
    debit(shared, org, 100)
    settle(shared, org, one, 100, 100)

    def work(session):
        more = {"operator": Operator("a", "b")} if by == "correct" else {}
        move = getattr(wallet, by)
        return move(session, org, key="k", amount_micros=101, currency="USD", now=T0, **more)

    outcome = shared.run(work)
    assert (outcome.balance_micros, outcome.owed_micros) == (1, 0)
    assert active_freezes(shared, org) == set()


def test_a_payment_of_another_organization_is_a_conflict_and_moves_nothing(shared, org):
    other, one = make_organization(shared), new_id()
    settle(shared, org, one, 100)
    before = money_state(shared, org), money_state(shared, other)
    assert settle(shared, other, one, 100).outcome == "IDEMPOTENCY_CONFLICT"
    assert (money_state(shared, org), money_state(shared, other)) == before


def test_of_two_organizations_that_claim_a_payment_at_once_one_gets_it(shared, org):
    other, one = make_organization(shared), new_id()
    outcomes = at_once([lambda o=o: settle(shared, o, one, 100) for o in (org, other) * 4])
    codes = {(x, o.outcome) for o, x in zip(outcomes, (org, other) * 4, strict=True)}
    assert {code for _, code in codes} == {"OK", "IDEMPOTENCY_CONFLICT"}
    assert len(codes) == 2
    assert figures(shared, org)[0] + figures(shared, other)[0] == 100


@pytest.mark.parametrize(
    ("captured", "refunded", "currency", "code"),
    [
        (100, 0, "EUR", "CURRENCY_MISMATCH"),
        (-1, 0, "USD", "INVALID_AMOUNT"),
        (100, -1, "USD", "INVALID_AMOUNT"),
        (AMOUNT_MICROS_MAX + 1, 0, "USD", "INVALID_AMOUNT"),
        (100, 10**30, "USD", "INVALID_AMOUNT"),
    ],
)
def test_refused_payment_keeps_nothing(shared, org, captured, refunded, currency, code):
    one = new_id()
    before = money_state(shared, org)
    assert settle(shared, org, one, captured, refunded, currency).outcome == code
    assert money_state(shared, org) == before
    # The reference is free: the real payment can be settled later
    assert settle(shared, org, one, 100).balance_micros == 100


def test_known_payment_reported_in_another_currency_is_unchanged(shared, org):
    one = new_id()
    settle(shared, org, one, 100)
    before = money_state(shared, org)
    assert settle(shared, org, one, 100, 50, "EUR").outcome == "CURRENCY_MISMATCH"
    assert money_state(shared, org) == before


def test_without_a_wallet_nothing_is_kept(shared):
    assert settle(shared, "org_none", new_id(), 100).outcome == "WALLET_NOT_FOUND"


def test_settling_waits_for_the_wallet(shared, shared_urls, org):
    impatient = Impatient(shared_urls.app_url, name="impatient", pool_size=1)
    lock = text("SELECT wallet_lock(:o)")
    try:
        with holding(shared, lambda s: s.execute(lock, {"o": org})), pytest.raises(DatabaseBusy):
            settle(impatient, org, new_id(), 100)
    finally:
        impatient.close()


def test_settlement_that_has_waited_counts_the_one_before_it(shared, shared_urls, org):
    # Given a payment of which 30 are being refunded, not committed yet
    one = new_id()
    settle(shared, org, one, 100)
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda s: wallet.settle(s, org, payment(one, org, 100, 30), T0),
        lambda: settle(shared, org, one, 100, 60),
    )
    # Then of 60 in total only 30 more are taken
    assert moves(shared, org) == [("topup", 100), ("refund", 30), ("refund", 30)]


def test_settlements_of_one_payment_that_wait_for_a_lock_add_up(shared, shared_urls, org):
    # Given two totals of one payment under way, and a wallet whose lock both wait for
    one = new_id()
    settle(shared, org, one, 100)
    lock = text("SELECT wallet_lock(:o)")
    with ThreadPoolExecutor(2) as pool:
        with holding(shared, lambda s: s.execute(lock, {"o": org})):
            running = [pool.submit(settle, shared, org, one, 100, part) for part in (30, 60)]
            assert wait_for_waiters(shared_urls.owner_url, 2)
        assert all(each.result(timeout=20).ok for each in running)
    # Then 60 are taken in total, in one step or two
    assert figures(shared, org) == (40, 0)


def test_settling_and_debiting_at_once_add_up(shared, org):
    credit(shared, org, 50)
    ids = [new_id() for _ in range(6)]
    results = at_once(
        [
            *(lambda one=one: settle(shared, org, one, 100) for one in ids),
            *(lambda one=one: settle(shared, org, one, 100, 100) for one in ids),
            *(lambda: debit(shared, org, 5) for _ in range(10)),
        ]
    )
    assert not [one for one in results if isinstance(one, Exception)]
    spent = 5 * sum(one.outcome == "OK" for one in results[12:])
    balance, owed = figures(shared, org)
    assert balance - owed == 50 - spent


# The domain's functions


def test_reported_payment_is_not_believed_but_refreshed(shared):
    report = PaymentReport(Provider.PAYPAL, "refund", "R-1")
    shared.run(lambda session: payments.stage_reported_refresh(session, report))
    (job,) = shared.run(lambda s: s.query(Job).filter_by(name="look_at_payment").all())
    assert job.kwargs == {"provider": "paypal", "kind": "refund", "external_id": "R-1"}
    assert job.queue == "billing"


def test_a_recorded_payment_lets_the_organization_spend(shared, org):
    subscribe(shared, org)
    assert record_payment(shared, payment(new_id(), org, 100)).ok
    assert debit(shared, org, 100).ok


def test_recorded_refund_that_freezes_is_enforced_at_once(shared, org):
    subscribe(shared, org)
    one = new_id()
    record_payment(shared, payment(one, org, 100))
    debit(shared, org, 60)
    record_payment(shared, payment(one, org, 100, 100))
    assert active_freezes(shared, org) == {"refund_shortfall"}


@pytest.mark.parametrize("whose", [None, "org_none"])
def test_a_payment_that_names_no_organization_of_ours_is_refused(shared, whose):
    with pytest.raises(PaymentNotOurs):
        record_payment(shared, payment(new_id(), whose, 100))


def test_a_payment_of_no_order_is_refused_unless_it_is_known_here(shared, org):
    # Given a fee, and a top-up that was settled before anything identified it
    fee, known = new_id(), new_id()
    settle(shared, org, known, 100)
    before = money_state(shared, org)
    # When the fee is reported, Then it is refused
    with pytest.raises(NotATopUp):
        record_payment(shared, payment(fee, org, 100, ordered=False))
    assert money_state(shared, org) == before
    # And the known payment can still be settled
    assert record_payment(shared, payment(known, org, 100, 40, ordered=False)).ok
    assert figures(shared, org) == (60, 0)


def test_refusal_of_the_ledger_is_raised_with_its_code_and_keeps_nothing(shared, org):
    before = money_state(shared, org)
    with pytest.raises(Refused) as caught:
        record_payment(shared, payment(new_id(), org, 100, currency="EUR"))
    assert caught.value.code == "CURRENCY_MISMATCH"
    assert money_state(shared, org) == before
