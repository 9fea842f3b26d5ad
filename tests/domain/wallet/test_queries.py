"""Reading and rebuilding wallets: crossings of zero, balances and history."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from db.models import Wallet
from domain.wallet import operations as wallets
from domain.wallet import queries as wallet_queries
from domain.wallet.ledger import WalletNotFound
from tests.domain.support import (
    T0,
    correct,
    credit,
    debit,
    entries,
    figures,
    forget_jobs,
    later,
    money_state,
    staged,
)
from tests.domain.wallet.support import as_owner, bare_organization, freeze, rebuild

MOVES = {"credit": credit, "debit": debit, "correct": correct}


# Crossing zero


def test_only_a_crossing_of_zero_stages_enforcement(shared, org):
    def stages(move, *arguments, **more):
        forget_jobs(shared, org)
        MOVES[move](shared, org, *arguments, **more)
        return len(staged(shared, org, "enforce_organization"))

    assert stages("credit", 10, key="up") == 1
    assert stages("credit", 10, key="up") == 0  # a replay
    assert stages("credit", 10) == 0
    assert stages("debit", 21) == 0  # refused
    assert stages("debit", 19) == 0
    assert stages("debit", 1) == 1
    assert stages("correct", 5) == 1
    assert stages("correct", -4) == 0
    assert stages("correct", -1) == 1
    (job,) = staged(shared, org, "enforce_organization")
    assert job.kwargs == {"organization_id": org}


def test_available_and_not_the_balance_crosses_zero(shared, shared_urls, org):
    credit(shared, org, 100)
    as_owner(shared_urls, f"UPDATE wallets SET held_micros = 60 WHERE organization_id = '{org}'")
    forget_jobs(shared, org)
    debit(shared, org, 40)
    assert len(staged(shared, org, "enforce_organization")) == 1


def test_a_crossing_that_is_rolled_back_stages_nothing(shared, org):
    class Bug(Exception):
        pass

    def work(session):
        wallets.credit(session, org, key="k", amount_micros=5, currency="USD", now=T0)
        raise Bug

    with pytest.raises(Bug):
        shared.run(work)
    assert staged(shared, org, "enforce_organization") == []
    assert figures(shared, org) == (0, 0)


# Reading


def test_session_that_read_the_wallet_before_sees_the_new_balance(shared, org):
    def work(session):
        kept = session.get_one(Wallet, org)
        before = kept.balance_micros
        wallets.credit(session, org, key="k", amount_micros=5, currency="USD", now=T0)
        return before, kept.balance_micros

    assert shared.run(work) == (0, 5)


def test_the_balance_shows_every_figure(shared, shared_urls, org):
    credit(shared, org, 100)
    as_owner(shared_urls, f"UPDATE wallets SET held_micros = 30 WHERE organization_id = '{org}'")
    found = shared.run(lambda session: wallet_queries.balance(session, org, T0))
    assert (found.balance_micros, found.held_micros, found.available_micros) == (100, 30, 70)
    assert (found.currency, found.owed_micros, found.entry_no) == ("USD", 0, 1)
    assert (found.frozen, found.consistent) == (False, True)


def history(database, org, **filters):
    found = database.run(lambda session: wallet_queries.history(session, org, **filters))
    return [entry.entry_no for entry in found]


def test_history_is_read_newest_first_in_pages_joined_by_a_cursor(shared, org):
    for n in range(1, 8):
        credit(shared, org, n)
    assert history(shared, org, limit=3) == [7, 6, 5]
    assert history(shared, org, limit=3, after=5) == [4, 3, 2]
    # An entry that is written between two pages does not shift them
    credit(shared, org, 8)
    assert history(shared, org, limit=3, after=2) == [1, 0]
    assert history(shared, org, limit=3, after=0) == []
    assert len(history(shared, org, limit=0)) == 1
    assert len(history(shared, org, limit=10**9)) == 9


def test_the_history_can_be_narrowed_by_kind_and_time(shared, org):
    for n in range(1, 5):
        credit(shared, org, 10, now=later(n))
    debit(shared, org, 1, now=later(5))
    freeze(shared, org, now=later(6))
    assert history(shared, org, kinds=["debit", "freeze"]) == [6, 5]
    assert history(shared, org, since=later(2), until=later(4)) == [3, 2]
    assert history(shared, org, kinds=["credit"], since=later(4)) == [4]


# Rebuilding


@pytest.mark.parametrize(
    "damage",
    ["balance_micros = 999", "owed_micros = 5", "entry_no = 1", "head_hash = '\\x00'"],
)
def test_damaged_wallet_is_detected_and_rebuilt_from_its_entries(
    shared, shared_urls, owner, org, damage
):
    # Given a wallet that was changed past every guard
    credit(shared, org, 100)
    debit(shared, org, 40)
    as_owner(
        shared_urls, f"UPDATE wallets SET {damage} WHERE organization_id = '{org}'", broken=True
    )
    assert shared.run(lambda session: wallet_queries.balance(session, org, T0)).consistent is False
    # When the owner rebuilds it
    assert rebuild(owner, org).balance_micros == 60
    # Then it agrees with its entries, one of which records the rebuild, and money moves again
    assert figures(shared, org) == (60, 0)
    last = entries(shared, org)[-1]
    assert (last.entry_no, last.kind, last.direction) == (3, "rebuild", "note")
    assert last.note.startswith("ann: disk (found balance ")
    assert debit(shared, org, 60).ok


def test_only_the_owner_may_rebuild(shared, org):
    before = money_state(shared, org)
    with pytest.raises(DBAPIError, match="permission denied"):
        rebuild(shared, org)
    assert money_state(shared, org) == before
    with pytest.raises(WalletNotFound):
        rebuild(shared, bare_organization(shared))


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM wallet_entries WHERE organization_id = '{org}' AND entry_no = 1",
        "DELETE FROM wallet_entries WHERE organization_id = '{org}' AND entry_no = 3",
        "UPDATE wallet_entries SET amount_micros = 1, balance_after_micros = balance_before_micros"
        " + 1 WHERE organization_id = '{org}' AND entry_no = 2",
        "UPDATE wallet_entries SET balance_before_micros = 7, balance_after_micros = 5 + 7"
        " WHERE organization_id = '{org}' AND entry_no = 4",
    ],
)
def test_entries_that_do_not_add_up_need_an_operator(shared, shared_urls, owner, org, damage):
    credit(shared, org, 100)
    credit(shared, org, 40)
    freeze(shared, org)
    credit(shared, org, 5)
    as_owner(shared_urls, damage.format(org=org), broken=True)
    before = money_state(shared, org)
    with pytest.raises(DBAPIError, match="do not add up"):
        rebuild(owner, org)
    assert money_state(shared, org) == before
