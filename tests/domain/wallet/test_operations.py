"""A wallet's operations: allowed, refused, replayed, conflicting and concurrent."""

from __future__ import annotations

from itertools import pairwise

import pytest
from sqlalchemy import text

from base.enums import FreezeReason
from base.money import AMOUNT_MICROS_MAX
from db.busy import DatabaseBusy
from db.models import Wallet
from domain.wallet import operations as wallets
from domain.wallet import queries as wallet_queries
from domain.wallet.ledger import WalletOutcome, call_ledger
from tests.db.support import Impatient, at_once, holding, one_behind_the_other
from tests.domain.support import (
    T0,
    active_freezes,
    correct,
    credit,
    debit,
    entries,
    figures,
    later,
    money_state,
)
from tests.domain.wallet.hold_support import commit
from tests.domain.wallet.support import as_owner, bare_organization, freeze, override, unfreeze
from tests.support.world import make_organization

MOVES = {"credit": credit, "debit": debit, "correct": correct}


# Opening


def open_wallet(database, org, currency="USD"):
    return database.run(lambda session: wallets.open_wallet(session, org, currency, T0))


def test_a_wallet_opens_empty_with_the_first_entry_of_its_chain(shared):
    org = bare_organization(shared)
    outcome = open_wallet(shared, org)
    assert outcome == WalletOutcome("OK", False, 0, 0, 0, 0, 0)
    (opening,) = entries(shared, org)
    assert (opening.entry_no, opening.kind, opening.counter_account) == (0, "opening", "USD")
    assert opening.previous_hash == b""


def test_opening_again_changes_nothing_and_another_currency_is_refused(shared, org):
    before = money_state(shared, org)
    assert open_wallet(shared, org).ok
    assert open_wallet(shared, org, "EUR").outcome == "CURRENCY_MISMATCH"
    assert open_wallet(shared, "org_none").outcome == "ORGANIZATION_NOT_FOUND"
    assert money_state(shared, org) == before


def test_a_wallet_that_many_open_at_once_is_opened_once(shared):
    org = bare_organization(shared)
    outcomes = at_once([lambda: open_wallet(shared, org)] * 8)
    assert [getattr(one, "outcome", one) for one in outcomes] == ["OK"] * 8
    assert len(entries(shared, org)) == 1


# Moving money


def test_a_credit_adds_and_a_debit_takes_each_with_an_entry_of_its_own(shared, org):
    assert credit(shared, org, 100, key="c", note="thanks") == WalletOutcome(
        "OK", False, 1, 100, 0, 0, 0
    )
    assert debit(shared, org, 30, key="d") == WalletOutcome("OK", False, 2, 70, 0, 0, 100)
    _, first, second = entries(shared, org)
    assert (first.direction, first.amount_micros, first.note) == ("credit", 100, "thanks")
    assert (first.balance_before_micros, first.balance_after_micros) == (0, 100)
    assert (second.direction, second.amount_micros, second.operation_key) == ("debit", 30, "d")
    assert (second.counter_account, second.created_at) == ("messages", T0)
    assert figures(shared, org) == (70, 0)


def test_a_debit_takes_the_last_micro_and_not_one_more(shared, org):
    credit(shared, org, 100)
    assert debit(shared, org, 101).outcome == "INSUFFICIENT_FUNDS"
    assert debit(shared, org, 100).balance_micros == 0
    assert debit(shared, org, 1).outcome == "INSUFFICIENT_FUNDS"


def test_held_money_is_not_available(shared, shared_urls, org):
    credit(shared, org, 100)
    as_owner(shared_urls, f"UPDATE wallets SET held_micros = 60 WHERE organization_id = '{org}'")
    assert debit(shared, org, 41).outcome == "INSUFFICIENT_FUNDS"
    outcome = debit(shared, org, 40)
    assert (outcome.ok, outcome.available_micros, outcome.available_before_micros) == (True, 0, 40)


def test_a_debit_never_uses_the_debt_limit_and_a_correction_stops_at_it(shared, shared_urls, org):
    as_owner(
        shared_urls, f"UPDATE wallets SET debt_limit_micros = 50 WHERE organization_id = '{org}'"
    )
    assert debit(shared, org, 1).outcome == "INSUFFICIENT_FUNDS"
    assert correct(shared, org, -51).outcome == "INSUFFICIENT_FUNDS"
    assert correct(shared, org, -50).balance_micros == -50


def test_a_correction_names_its_operator_its_reason_and_the_balance_before(shared, org):
    credit(shared, org, 100)
    assert correct(shared, org, -40).balance_micros == 60
    assert correct(shared, org, 15).balance_micros == 75
    taken, given = entries(shared, org)[-2:]
    assert (taken.kind, taken.direction) == ("BALANCE_CORRECTION", "debit")
    assert taken.note == "ann: typo (before 100)"
    assert (given.direction, given.amount_micros) == ("credit", 15)


@pytest.mark.parametrize(("micros", "left"), [(49, (0, 1)), (50, (0, 0)), (80, (30, 0))])
def test_a_correction_pays_the_outstanding_amount_first(shared, org, micros, left):
    # Given a call that cost 50 more than the balance
    credit(shared, org, 100)
    commit(shared, org, 150)
    assert (figures(shared, org), active_freezes(shared, org)) == ((0, 50), {"call_shortfall"})
    # When an operator credits, Then the outstanding amount is paid before anything is available
    assert correct(shared, org, micros).ok
    assert figures(shared, org) == left
    # And the freeze that it caused stays until nothing is outstanding
    assert active_freezes(shared, org) == ({"call_shortfall"} if left[1] else set())


@pytest.mark.parametrize("missing", [{"operator": ""}, {"why": ""}])
def test_ledger_refuses_a_correction_without_operator_or_reason(shared, org, missing):
    before = money_state(shared, org)
    values = {"operator": "ann", "why": "typo", **missing}
    outcome = shared.run(
        lambda session: call_ledger(
            session,
            "wallet_correct(:org, 'k', 'credit', 5, 'USD', :operator, :why, :now)",
            org=org,
            now=T0,
            **values,
        )
    )
    assert outcome.outcome == "INVALID_CORRECTION"
    assert money_state(shared, org) == before


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize(
    ("amount", "more", "code"),
    [
        (0, {}, "INVALID_AMOUNT"),
        (AMOUNT_MICROS_MAX + 1, {}, "INVALID_AMOUNT"),
        (2**63, {}, "INVALID_AMOUNT"),
        (10**30, {}, "INVALID_AMOUNT"),
        (5, {"currency": "EUR"}, "CURRENCY_MISMATCH"),
    ],
)
def test_a_refusal_changes_nothing_and_its_key_is_free(shared, org, move, amount, more, code):
    credit(shared, org, 100)
    before = money_state(shared, org)
    assert MOVES[move](shared, org, amount, key="free", **more).outcome == code
    assert money_state(shared, org) == before
    # The same key may succeed later, because a refusal is not stored
    again = MOVES[move](shared, org, 5, key="free")
    assert (again.ok, again.replayed) == (True, False)


@pytest.mark.parametrize("move", ["credit", "debit"])
def test_a_negative_amount_is_refused(shared, org, move):
    credit(shared, org, 100)
    before = money_state(shared, org)
    assert MOVES[move](shared, org, -1).outcome == "INVALID_AMOUNT"
    assert MOVES[move](shared, org, -(10**30)).outcome == "INVALID_AMOUNT"
    assert money_state(shared, org) == before


@pytest.mark.parametrize("move", MOVES)
def test_operation_without_a_wallet_is_refused(shared, move):
    org = bare_organization(shared)
    assert MOVES[move](shared, org, 5).outcome == "WALLET_NOT_FOUND"
    assert MOVES[move](shared, "org_none", 5).outcome == "WALLET_NOT_FOUND"


@pytest.mark.parametrize("move", MOVES)
def test_the_largest_amount_is_exact(shared, org, move):
    credit(shared, org, AMOUNT_MICROS_MAX)
    outcome = MOVES[move](shared, org, AMOUNT_MICROS_MAX)
    expected = 0 if move == "debit" else 2 * AMOUNT_MICROS_MAX
    assert figures(shared, org) == (outcome.balance_micros, 0) == (expected, 0)


@pytest.mark.parametrize("move", ["credit", "correct"])
def test_a_balance_at_its_bound_takes_no_more(shared, shared_urls, org, move):
    # Given a wallet one micro below the largest possible balance
    query = (
        "SELECT ledger_store(ledger_append(w, 'credit', 'credit', 1000000000000000, 0, 'c', 'k',"
        " '', now()), now()) FROM wallets w WHERE organization_id = '{org}'"
    )
    as_owner(
        shared_urls,
        f"DO $$ BEGIN FOR i IN 1..899 LOOP PERFORM {query.removeprefix('SELECT ').format(org=org)};"
        " END LOOP; END $$",
    )
    credit(shared, org, AMOUNT_MICROS_MAX - 1)
    before = money_state(shared, org)
    # When two more micros are credited
    assert MOVES[move](shared, org, 2).outcome == "INVALID_AMOUNT"
    # Then it is refused without an overflow; one micro fits
    assert money_state(shared, org) == before
    assert MOVES[move](shared, org, 1).balance_micros == 900 * AMOUNT_MICROS_MAX


@pytest.mark.parametrize("move", MOVES)
def test_replay_returns_the_first_result_and_moves_nothing(shared, org, move):
    credit(shared, org, 100)
    first = MOVES[move](shared, org, 10, key="same")
    credit(shared, org, 1_000)
    before = money_state(shared, org)
    # Text and time are not part of what makes a request the same
    again = MOVES[move](shared, org, 10, key="same", now=later(86_400))
    assert (again.outcome, again.replayed, again.entry_no) == ("OK", True, first.entry_no)
    assert again.balance_micros == first.balance_micros
    assert money_state(shared, org) == before


def test_a_replay_is_answered_although_the_wallet_could_not_pay_now(shared, org):
    credit(shared, org, 10)
    debit(shared, org, 10, key="same")
    freeze(shared, org)
    assert debit(shared, org, 10, key="same").replayed
    assert debit(shared, org, 10, key="other").outcome == "FROZEN_WALLET"


SECONDS = [
    ("credit", 10, {}),
    ("debit", 10, {}),
    ("correct", 10, {}),
    ("correct", -10, {}),
    ("same", 11, {}),
    ("same", 10, {"currency": "EUR"}),
    ("credit", 10, {"kind": "topup"}),
]


@pytest.mark.parametrize(
    ("first", "second", "amount", "more"),
    [
        (first, *second)
        for first in MOVES
        for second in SECONDS
        if (first, 10, {}) != second  # that would be the same request
    ],
)
def test_a_key_used_for_another_request_is_a_conflict(shared, org, first, second, amount, more):
    credit(shared, org, 100)
    MOVES[first](shared, org, 10, key="same")
    before = money_state(shared, org)
    outcome = MOVES[first if second == "same" else second](shared, org, amount, key="same", **more)
    assert outcome.outcome == "IDEMPOTENCY_CONFLICT"
    assert money_state(shared, org) == before


def test_two_organizations_may_use_the_same_key(shared, org):
    other = make_organization(shared)
    assert not credit(shared, org, 5, key="same").replayed
    assert not credit(shared, other, 7, key="same").replayed


# All at once


def test_of_a_hundred_debits_at_once_as_many_succeed_as_the_balance_pays(shared, org):
    # Given 6 micros, and a hundred requests for 5
    credit(shared, org, 6)
    outcomes = at_once([lambda n=n: debit(shared, org, 5, key=f"d{n}") for n in range(100)])
    # Then each has an outcome, and no database error is raised
    codes = [getattr(one, "outcome", repr(one)) for one in outcomes]
    assert sorted(codes) == ["INSUFFICIENT_FUNDS"] * 99 + ["OK"]
    assert figures(shared, org) == (1, 0)


def test_concurrent_debits_and_credits_add_up_without_gaps(shared, org):
    credit(shared, org, 1_000)

    def work(n):
        for round_ in range(4):
            assert debit(shared, org, 7, key=f"d{n}:{round_}").ok
            assert credit(shared, org, 3, key=f"c{n}:{round_}").ok

    assert at_once([lambda n=n: work(n) for n in range(32)]) == [None] * 32
    assert figures(shared, org) == (1_000 - 32 * 4 * 4, 0)
    rows = entries(shared, org)
    assert [row.entry_no for row in rows] == list(range(2 + 32 * 8))
    for before, after in pairwise(rows):
        assert after.balance_before_micros == before.balance_after_micros
        assert after.previous_hash == before.hash
    assert (
        shared.run(lambda session: wallet_queries.entries_sum(session, org)) == 1_000 - 32 * 4 * 4
    )


@pytest.mark.parametrize("move", MOVES)
def test_the_same_request_many_times_at_once_moves_money_once(shared, org, move):
    credit(shared, org, 10)
    outcomes = at_once([lambda: MOVES[move](shared, org, 10, key="same")] * 12)
    assert [getattr(one, "outcome", repr(one)) for one in outcomes] == ["OK"] * 12
    assert sum(not one.replayed for one in outcomes) == 1
    assert len(entries(shared, org)) == 3


OPERATIONS = {
    **MOVES,
    "freeze": lambda database, org, _: freeze(database, org),
    "unfreeze": lambda database, org, _: unfreeze(database, org),
    "override": lambda database, org, _: override(database, org, later(60)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_waits_for_the_wallets_lock(shared_urls, shared, org, name):
    # Given a freeze to work on, a wallet locked by another session, and a short lock timeout
    freeze(shared, org, FreezeReason.DISPUTE)
    if name in ("unfreeze", "override"):
        freeze(shared, org)
    impatient = Impatient(shared_urls.app_url, name="impatient", pool_size=1)
    try:
        with (
            holding(shared, lambda s: s.execute(text("SELECT wallet_lock(:o)"), {"o": org})),
            pytest.raises(DatabaseBusy, match="LockNotAvailable"),
        ):
            OPERATIONS[name](impatient, org, 5)
    finally:
        impatient.close()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_that_has_waited_sees_the_result_of_the_one_before(
    shared, shared_urls, org, name
):
    # Given a wallet with an overridden freeze, and a credit that is not committed yet
    freeze(shared, org)
    override(shared, org, later(60))
    if name == "freeze":
        unfreeze(shared, org)
    before = len(entries(shared, org))
    result = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda s: wallets.credit(s, org, key="first", amount_micros=5, currency="USD", now=T0),
        lambda: OPERATIONS[name](shared, org, 5),
    )
    # Then the operation builds on it: a debit can spend it, and the entry numbers continue
    assert getattr(result, "outcome", "OK") == "OK"
    assert figures(shared, org)[0] == {"credit": 10, "debit": 0, "correct": 10}.get(name, 5)
    assert [entry.entry_no for entry in entries(shared, org)] == list(range(before + 2))


def test_wallet_that_is_being_opened_is_waited_for(shared, shared_urls):
    org = bare_organization(shared)
    outcome = one_behind_the_other(
        shared,
        shared_urls.owner_url,
        lambda s: wallets.open_wallet(s, org, "USD", T0),
        lambda: open_wallet(shared, org),
    )
    assert outcome.ok
    assert len(entries(shared, org)) == 1


def test_calls_reserved_key_is_refused_since_it_would_block_its_charge(shared, org):
    credit(shared, org, 10)
    for act in (credit, debit):
        assert act(shared, org, 1, key="call:c1:commit").outcome == "RESERVED_KEY"


def test_row_that_the_session_read_before_is_read_again(shared, org):
    def work(session):
        row = session.get_one(Wallet, org)
        values = {"key": "k", "amount_micros": 5, "currency": "USD", "now": T0}
        wallets.credit(session, org, **values)
        return row.balance_micros

    assert shared.run(work) == 5


@pytest.mark.parametrize(
    ("outcome", "replayed", "before", "balance", "crossed"),
    [
        ("OK", False, 1, 0, True),
        ("OK", False, 0, 1, True),
        ("OK", False, 2, 1, False),
        ("OK", False, 0, -1, False),
        ("OK", False, None, 1, False),
        ("OK", True, 1, 0, False),
        ("INSUFFICIENT_FUNDS", False, 1, 0, False),
    ],
)
def test_available_crosses_zero_only_when_the_operation_moved_money(
    outcome, replayed, before, balance, crossed
):
    assert WalletOutcome(outcome, replayed, 1, balance, 0, 0, before).crossed_zero is crossed
