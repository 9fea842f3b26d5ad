"""Holds for calls: every operation, its refusals, replays and exact limits."""

from __future__ import annotations

import pytest

from base.enums import FreezeReason
from base.money import AMOUNT_MICROS_MAX
from domain.wallet.ledger import WalletOutcome
from tests.domain.support import T0, active_freezes, credit, debit, entries, later
from tests.domain.wallet.hold_support import (
    END,
    SETTLING,
    commit,
    everything,
    expire,
    extend,
    fate,
    hold,
    money,
    release,
    reserve,
    set_limit,
)
from tests.domain.wallet.support import freeze, override, unfreeze
from tests.support.world import make_organization

BIG = AMOUNT_MICROS_MAX


# Reserve


def test_a_hold_sets_money_aside_without_an_entry(shared, funded):
    outcome = reserve(shared, funded, 60, provider_call_id="vapi-1" + funded)
    assert outcome == WalletOutcome("OK", False, 1, 100, 60, 0, 100)
    assert outcome.available_micros == 40
    assert money(shared, funded) == (100, 60, 0)
    assert len(entries(shared, funded)) == 2
    found = hold(shared, funded)
    assert (found.status, found.reserved_micros, found.extensions) == ("open", 60, 0)
    assert (found.created_at, found.expires_at, found.settled_at) == (T0, END, None)
    assert (found.call_id, found.provider_call_id) == ("c1", "vapi-1" + funded)


def test_a_hold_takes_the_last_micro_and_not_one_more(shared, funded):
    assert reserve(shared, funded, 101).outcome == "INSUFFICIENT_FUNDS"
    assert reserve(shared, funded, 100).available_micros == 0
    before = everything(shared, funded)
    assert reserve(shared, funded, 1, "c2").outcome == "INSUFFICIENT_FUNDS"
    assert everything(shared, funded) == before


def test_sixth_hold_of_1000_is_refused_on_a_balance_of_5000(shared, org):
    credit(shared, org, 5_000)
    codes = [reserve(shared, org, 1_000, f"c{n}").outcome for n in range(6)]
    assert codes == ["OK"] * 5 + ["INSUFFICIENT_FUNDS"]
    assert money(shared, org) == (5_000, 5_000, 0)
    assert debit(shared, org, 1).outcome == "INSUFFICIENT_FUNDS"


def test_a_hold_never_uses_the_debt_limit(shared, funded):
    set_limit(shared, funded, 50)
    assert reserve(shared, funded, 101).outcome == "INSUFFICIENT_FUNDS"
    reserve(shared, funded, 100)
    assert extend(shared, funded, 1, 1).outcome == "INSUFFICIENT_FUNDS"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"amount": 0}, "INVALID_AMOUNT"),
        ({"amount": -1}, "INVALID_AMOUNT"),
        ({"amount": BIG + 1}, "INVALID_AMOUNT"),
        ({"amount": 10**30}, "INVALID_AMOUNT"),
        ({"call": ""}, "INVALID_CALL"),
        ({"call": "x" * 65}, "INVALID_CALL"),
        ({"call": None}, "INVALID_CALL"),
        ({"provider_call_id": ""}, "INVALID_CALL"),
        ({"provider_call_id": "x" * 65}, "INVALID_CALL"),
        ({"until": T0}, "INVALID_EXPIRY"),
        ({"until": None}, "INVALID_EXPIRY"),
        ({"currency": "EUR"}, "CURRENCY_MISMATCH"),
        ({"currency": None}, "CURRENCY_MISMATCH"),
    ],
)
def test_a_refused_hold_changes_nothing_and_may_succeed_later(shared, funded, more, code):
    before = everything(shared, funded)
    assert reserve(shared, funded, **{"amount": 10, **more}).outcome == code
    assert everything(shared, funded) == before
    assert not reserve(shared, funded, 10).replayed


def test_frozen_wallet_is_not_held_until_the_freeze_ends_or_is_overridden(shared, funded):
    reserve(shared, funded, 10)
    freeze(shared, funded)
    before = everything(shared, funded)
    assert reserve(shared, funded, 10, "c2").outcome == "FROZEN_WALLET"
    assert extend(shared, funded, 1, 10).outcome == "FROZEN_WALLET"
    assert everything(shared, funded) == before
    override(shared, funded, later(60))
    assert extend(shared, funded, 1, 10).ok
    assert extend(shared, funded, 2, 10, now=later(60)).outcome == "FROZEN_WALLET"
    unfreeze(shared, funded)
    assert extend(shared, funded, 2, 10, now=later(60)).ok


def test_second_request_for_a_call_returns_the_first_hold(shared, funded):
    reserve(shared, funded, 60)
    before = everything(shared, funded)
    for amount in (60, 10, 1_000):
        again = reserve(shared, funded, amount, until=later(9_999), now=later(700))
        assert (again.outcome, again.replayed, again.held_micros) == ("OK", True, 60)
    # A freeze stops new spending, and a replay is not new
    freeze(shared, funded)
    assert reserve(shared, funded, 60).replayed
    assert everything(shared, funded)[-1] == before[-1]


def test_a_call_and_the_providers_call_are_paired_once(shared, funded):
    reserve(shared, funded, 10, "c1", provider_call_id="v1")
    before = everything(shared, funded)
    conflict = "IDEMPOTENCY_CONFLICT"
    assert reserve(shared, funded, 10, "c1", provider_call_id="v2").outcome == conflict
    assert reserve(shared, funded, 10, "c2", provider_call_id="v1").outcome == conflict
    assert everything(shared, funded) == before
    assert reserve(shared, funded, 10, "c1").replayed
    # Another organization may use the same IDs
    other = make_organization(shared, micros=100)
    assert not reserve(shared, other, 10, "c1", provider_call_id="v1").replayed


@pytest.mark.parametrize("way", [*SETTLING, "bill without a hold"])
def test_a_settled_call_is_never_held_again(shared, funded, way):
    if way == "bill without a hold":
        commit(shared, funded, 10)
    else:
        reserve(shared, funded, 60)
        SETTLING[way](shared, funded)
    before = everything(shared, funded)
    assert reserve(shared, funded, 60).outcome == "CALL_SETTLED"
    assert extend(shared, funded, 1, 5).outcome == "CALL_SETTLED"
    assert expire(shared, funded, now=later(10_000)) == []
    assert everything(shared, funded) == before


# Extend


def test_an_extension_adds_to_the_hold_and_only_ever_puts_its_end_off(shared, funded):
    reserve(shared, funded, 30)
    assert extend(shared, funded, 1, 20, until=later(900)).held_micros == 50
    assert extend(shared, funded, 2, 50, until=later(800)).available_micros == 0
    found = hold(shared, funded)
    assert (found.reserved_micros, found.extensions, found.expires_at) == (100, 2, later(900))
    assert money(shared, funded) == (100, 100, 0)
    before = everything(shared, funded)
    assert extend(shared, funded, 3, 1, until=later(900)).outcome == "INSUFFICIENT_FUNDS"
    assert everything(shared, funded) == before


def test_an_extension_is_made_once_and_in_turn(shared, funded):
    reserve(shared, funded, 10)
    extend(shared, funded, 1, 20)
    extend(shared, funded, 2, 30)
    before = everything(shared, funded)
    # The newest again is a replay, or a conflict with another amount; an older one was made
    assert extend(shared, funded, 2, 30, until=later(9_999)).replayed
    assert extend(shared, funded, 2, 31).outcome == "IDEMPOTENCY_CONFLICT"
    assert extend(shared, funded, 1, 20).replayed
    assert extend(shared, funded, 4, 5).outcome == "IDEMPOTENCY_CONFLICT"
    assert extend(shared, funded, 2**40, 5).outcome == "IDEMPOTENCY_CONFLICT"
    assert everything(shared, funded) == before


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"amount": 0}, "INVALID_AMOUNT"),
        ({"amount": BIG + 1}, "INVALID_AMOUNT"),
        ({"nth": 0}, "INVALID_EXTENSION"),
        ({"nth": -(2**40)}, "INVALID_EXTENSION"),
        ({"until": T0}, "INVALID_EXPIRY"),
        ({"until": None}, "INVALID_EXPIRY"),
        ({"call": "none"}, "HOLD_NOT_FOUND"),
        ({"call": None}, "HOLD_NOT_FOUND"),
    ],
)
def test_a_refused_extension_changes_nothing(shared, funded, more, code):
    reserve(shared, funded, 10)
    before = everything(shared, funded)
    assert extend(shared, funded, **{"nth": 1, "amount": 10, **more}).outcome == code
    assert everything(shared, funded) == before


def test_hold_is_bounded_like_an_amount_and_held_may_be_more(shared, org):
    credit(shared, org, BIG)
    credit(shared, org, BIG)
    assert reserve(shared, org, BIG - 1).ok
    assert extend(shared, org, 1, 2).outcome == "INVALID_AMOUNT"
    assert extend(shared, org, 1, 1).held_micros == BIG
    assert reserve(shared, org, BIG, "c2").held_micros == 2 * BIG
    assert money(shared, org) == (2 * BIG, 2 * BIG, 0)
    assert commit(shared, org, BIG).balance_micros == BIG


# Commit


@pytest.mark.parametrize("cost", [0, 1, 59, 60])
def test_a_call_is_charged_from_its_hold_and_the_rest_given_back(shared, funded, cost):
    reserve(shared, funded, 60)
    outcome = commit(shared, funded, cost, now=later(9))
    assert outcome == WalletOutcome("OK", False, 2 if cost else 1, 100 - cost, 0, 0, 40)
    assert money(shared, funded) == (100 - cost, 0, 0)
    assert fate(shared, funded) == ("committed", 60, cost, 60 - cost, cost, 0)
    assert hold(shared, funded).settled_at == later(9)
    made = [(one.kind, one.direction, one.amount_micros) for one in entries(shared, funded)[2:]]
    assert made == ([("call", "debit", cost)] if cost else [])


@pytest.mark.parametrize(
    ("limit", "cost", "after", "short"),
    [
        (0, 60, (40, 40, 0), 0),
        (0, 61, (40, 40, 1), 1),
        (30, 51, (49, 40, 0), 0),
        (30, 90, (10, 40, 0), 0),
        (30, 91, (10, 40, 1), 1),
        (30, BIG, (10, 40, BIG - 90), BIG - 90),
    ],
)
def test_cost_over_the_hold_takes_available_then_debt_then_is_outstanding(
    shared, funded, limit, cost, after, short
):
    # Given 100, of which this call holds 50 and another call 40
    set_limit(shared, funded, limit)
    reserve(shared, funded, 40, "other")
    reserve(shared, funded, 50)
    # When it cost more than its hold
    assert commit(shared, funded, cost).ok
    # Then the other hold is whole, and the balance minus that hold is within the limit
    assert money(shared, funded) == after
    assert fate(shared, funded) == ("committed", 50, 50, 0, cost, short)
    assert fate(shared, funded, "other")[:2] == ("open", 40)
    assert active_freezes(shared, funded) == ({"call_shortfall"} if short else set())


def test_shortfall_is_recorded_by_entries_and_paid_by_the_next_credit(shared, funded):
    reserve(shared, funded, 100)
    assert commit(shared, funded, 130).owed_micros == 30
    written = [(one.kind, one.amount_micros) for one in entries(shared, funded)[2:]]
    assert written == [("call", 100), ("owed", 30), ("freeze", 0)]
    assert {one.operation_key for one in entries(shared, funded)[2:]} == {"call:c1:commit"}
    credit(shared, funded, 29)
    assert (money(shared, funded), active_freezes(shared, funded)) == (
        (0, 0, 1),
        {"call_shortfall"},
    )
    credit(shared, funded, 11)
    assert (money(shared, funded), active_freezes(shared, funded)) == ((10, 0, 0), set())


def test_debt_within_the_limit_freezes_nothing_but_leaves_no_money(shared, funded):
    set_limit(shared, funded, 50)
    assert commit(shared, funded, 150).available_micros == -50
    assert (money(shared, funded), active_freezes(shared, funded)) == ((-50, 0, 0), set())
    assert debit(shared, funded, 1).outcome == "INSUFFICIENT_FUNDS"
    assert reserve(shared, funded, 1, "c2").outcome == "INSUFFICIENT_FUNDS"
    assert commit(shared, funded, 1, "c3").owed_micros == 1


def test_frozen_wallets_call_is_charged_nevertheless(shared, funded):
    reserve(shared, funded, 60)
    freeze(shared, funded, FreezeReason.DISPUTE)
    assert commit(shared, funded, 70).ok
    assert (money(shared, funded), active_freezes(shared, funded)) == ((30, 0, 0), {"dispute"})


def test_a_call_without_a_hold_is_billed_directly(shared, funded):
    assert commit(shared, funded, 30).balance_micros == 70
    assert fate(shared, funded) == ("committed", 0, 0, 0, 30, 0)
    assert money(shared, funded) == (70, 0, 0)
    assert commit(shared, funded, 0, "free").ok
    assert fate(shared, funded, "free") == ("committed", 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("way", "status"), [("release", "released"), ("expire", "expired")])
def test_late_commit_is_charged_directly_and_once(shared, funded, way, status):
    reserve(shared, funded, 60)
    SETTLING[way](shared, funded)
    settled_at = hold(shared, funded).settled_at
    assert commit(shared, funded, 130, now=later(9_999)).owed_micros == 30
    assert fate(shared, funded) == (status, 60, 0, 60, 130, 30)
    assert hold(shared, funded).settled_at == settled_at
    assert money(shared, funded) == (0, 0, 30)
    before = everything(shared, funded)
    assert commit(shared, funded, 130).replayed
    assert release(shared, funded).outcome == "CALL_SETTLED"
    assert everything(shared, funded) == before


def test_commit_is_replayed_and_a_different_one_conflicts(shared, funded):
    reserve(shared, funded, 60)
    first = commit(shared, funded, 50)
    credit(shared, funded, 1_000)
    before = everything(shared, funded)
    again = commit(shared, funded, 50, now=later(9_999))
    assert (again.ok, again.replayed, again.entry_no) == (True, True, first.entry_no)
    assert (again.balance_micros, again.held_micros) == (50, 0)
    for amount, currency in ((51, "USD"), (0, "USD"), (50, "EUR"), (50, None)):
        other = commit(shared, funded, amount, currency=currency)
        assert other.outcome == "IDEMPOTENCY_CONFLICT"
    assert everything(shared, funded) == before


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"amount": -1}, "INVALID_AMOUNT"),
        ({"amount": BIG + 1}, "INVALID_AMOUNT"),
        ({"amount": 10**30}, "INVALID_AMOUNT"),
        ({"call": ""}, "INVALID_CALL"),
        ({"call": None}, "INVALID_CALL"),
        ({"call": "x" * 65}, "INVALID_CALL"),
        ({"currency": "EUR"}, "CURRENCY_MISMATCH"),
        ({"currency": None}, "CURRENCY_MISMATCH"),
    ],
)
def test_a_refused_commit_changes_nothing_and_may_succeed_later(shared, funded, more, code):
    reserve(shared, funded, 60)
    before = everything(shared, funded)
    assert commit(shared, funded, **{"amount": 10, **more}).outcome == code
    assert everything(shared, funded) == before
    assert not commit(shared, funded, 10).replayed
