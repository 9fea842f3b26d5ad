"""The end of holds: postponed, released, expired; and missing arguments."""

from __future__ import annotations

from datetime import datetime

import psycopg
import pytest
from sqlalchemy import text

from base.money import AMOUNT_MICROS_MAX
from db.address import driver_url
from domain.wallet import holds
from domain.wallet.ledger import WalletNotFound
from tests.domain.support import T0, active_freezes, correct, later
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
    settle,
)
from tests.domain.wallet.support import bare_organization, freeze
from tests.support.world import make_organization

BIG = AMOUNT_MICROS_MAX


# Postpone


def put_off(database, org, until, *, now=T0):
    return database.run(
        lambda session: holds.postpone_expiry(session, org, "c1", expires_at=until, now=now)
    )


def test_open_hold_is_postponed_and_never_ends_earlier(shared, funded):
    reserve(shared, funded, 60)
    assert put_off(shared, funded, later(900))
    assert hold(shared, funded).expires_at == later(900)
    assert put_off(shared, funded, later(700))
    assert hold(shared, funded).expires_at == later(900)
    assert money(shared, funded) == (100, 60, 0)


@pytest.mark.parametrize("until", [T0, later(-1), "infinity"])
def test_hold_is_not_postponed_to_the_past_or_without_end(shared, funded, until):
    reserve(shared, funded, 60)
    before = everything(shared, funded)
    assert not put_off(shared, funded, until)
    assert everything(shared, funded) == before


@pytest.mark.parametrize("end", [release, expire, lambda db, org: commit(db, org, 5)])
def test_hold_that_is_over_is_not_postponed(shared, funded, end):
    reserve(shared, funded, 60)
    end(shared, funded)
    before = everything(shared, funded)
    assert not put_off(shared, funded, later(9_000))
    assert everything(shared, funded) == before


# Release


def test_release_returns_the_whole_hold_and_its_replay_changes_nothing(shared, funded):
    reserve(shared, funded, 60)
    extend(shared, funded, 1, 30)
    assert release(shared, funded, now=later(5)).available_micros == 100
    assert fate(shared, funded) == ("released", 90, 0, 90, None, 0)
    assert money(shared, funded) == (100, 0, 0)
    before = everything(shared, funded)
    again = release(shared, funded)
    assert (again.ok, again.replayed) == (True, True)
    assert everything(shared, funded) == before


def test_release_is_allowed_while_frozen_and_refused_without_a_hold(shared, funded):
    reserve(shared, funded, 60)
    freeze(shared, funded)
    assert release(shared, funded, "none").outcome == "HOLD_NOT_FOUND"
    assert release(shared, funded, None).outcome == "HOLD_NOT_FOUND"
    commit(shared, funded, 5, "billed")
    before = everything(shared, funded)
    assert release(shared, funded, "billed").outcome == "CALL_SETTLED"
    assert everything(shared, funded) == before
    assert release(shared, funded).available_micros == 95


@pytest.mark.parametrize("way", ["release", "expire", "commit"])
def test_returned_hold_pays_the_outstanding_amount_and_lifts_its_freeze(shared, funded, way):
    # Given a refund of money that is held, which becomes outstanding and freezes
    settle(shared, funded, 100)
    reserve(shared, funded, 80)
    reserve(shared, funded, 90, "c2")
    settle(shared, funded, 100, 100)
    assert (money(shared, funded), active_freezes(shared, funded)) == (
        (170, 170, 70),
        {"refund_shortfall"},
    )
    # When the first hold ends, with a cost of 20 or none, Then what it returns pays
    cost = 20 if way == "commit" else 0
    commit(shared, funded, 20) if cost else SETTLING[way](shared, funded)
    if cost:
        assert (money(shared, funded), active_freezes(shared, funded)) == (
            (90, 90, 10),
            {"refund_shortfall"},
        )
        release(shared, funded, "c2")
    # Then nothing is outstanding, and the freeze that it caused is lifted
    free = 10 if not cost else 80
    held = 90 if not cost else 0
    assert (money(shared, funded), active_freezes(shared, funded)) == (
        (held + free, held, 0),
        set(),
    )


# Expire


def test_only_open_holds_past_their_end_expire(shared, funded):
    for n in range(6):
        reserve(shared, funded, 10, f"c{n}", until=later(100 + n))
    commit(shared, funded, 10, "c0")
    release(shared, funded, "c1")
    extend(shared, funded, 1, 10, "c2", until=later(500))
    freeze(shared, funded)
    calls = [f"c{n}" for n in range(9)]
    # A hold is over at the very instant of its end; a hold that was not named is kept
    assert expire(shared, funded, *calls[:4], now=later(105)) == ["c3"]
    assert expire(shared, funded, *calls, now=later(104)) == ["c4"]
    assert fate(shared, funded, "c4") == ("expired", 10, 0, 10, None, 0)
    assert money(shared, funded) == (90, 30, 0)
    before = everything(shared, funded)
    assert expire(shared, funded, *calls, now=later(104)) == []
    assert shared.run(lambda s: holds.expire(s, funded, call_ids=[], now=later(999))) == []
    assert everything(shared, funded) == before
    other = make_organization(shared, micros=10)
    assert expire(shared, other, *calls, now=later(9_999)) == []


def test_expiry_names_an_organization_with_a_wallet(shared):
    with pytest.raises(WalletNotFound):
        expire(shared, bare_organization(shared))


def test_hold_past_its_end_is_still_open_until_it_is_expired(shared, funded):
    reserve(shared, funded, 60)
    assert reserve(shared, funded, 60, now=later(9_000)).replayed
    assert extend(shared, funded, 1, 10, now=later(9_000), until=later(9_600)).ok
    assert expire(shared, funded, now=later(9_599)) == []
    assert commit(shared, funded, 70, now=later(99_000)).balance_micros == 30
    assert fate(shared, funded) == ("committed", 70, 70, 0, 70, 0)


def test_candidates_are_read_without_a_lock_the_longest_past_first(shared, funded):
    def candidates(now: datetime, limit: int = 10):
        found = shared.run(lambda s: holds.expired_candidates(s, now, limit))
        return [one.call_id for one in found if one.organization_id == funded]

    # Long before the holds of other tests
    for n, seconds in ((1, 30), (2, 10), (3, 20)):
        reserve(
            shared, funded, 10, f"c{n}", until=later(seconds - 9_999), now=later(-99_999),
            provider_call_id=f"v{n}",
        )  # fmt: skip
    with shared.engine.connect() as other:
        other.execute(text("SELECT wallet_lock(:org)"), {"org": funded})
        assert candidates(later(25 - 9_999)) == ["c2", "c3"]
        assert candidates(later(25 - 9_999), limit=1) == ["c2"]
        other.rollback()
    commit(shared, funded, 1, "c2")
    (one,) = shared.run(lambda s: holds.expired_candidates(s, later(20 - 9_999), 9))
    assert (one.call_id, one.provider_call_id, one.expires_at) == ("c3", "v3", later(20 - 9_999))


# Missing arguments


OPERATIONS = {
    "reserve": lambda db, org: reserve(db, org, 5),
    "extend": lambda db, org: extend(db, org, 1, 5),
    "commit": lambda db, org: commit(db, org, 5),
    "release": release,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_without_a_wallet_there_is_no_hold(shared, name):
    assert OPERATIONS[name](shared, bare_organization(shared)).outcome == "WALLET_NOT_FOUND"
    assert OPERATIONS[name](shared, "org_none").outcome == "WALLET_NOT_FOUND"


CALLS = {
    "reserve_call_credits": ["{org}", "new", "v9", 5, "USD", END, T0],
    "extend_call_credits": ["{org}", "c1", 1, 5, END, T0],
    "commit_reserved_credits": ["{org}", "c1", 5, "USD", T0],
    "release_call_credits": ["{org}", "c1", T0],
    "cleanup_expired_reservations": ["{org}", ["c1"], END],
    "check_balance_and_deduct_asset_cost": ["{org}", "k", 5, "USD", "a", T0],
    "wallet_set_debt_limit": ["{org}", 5, "ann", "why", T0],
}


@pytest.mark.parametrize(
    ("name", "n"), [(name, n) for name in CALLS for n in range(len(CALLS[name]))]
)
def test_null_argument_never_leaves_a_wallet_half_done(shared, shared_urls, funded, name, n):
    # Given one argument that is NULL in a direct call of the function
    reserve(shared, funded, 60)
    before = everything(shared, funded)
    given = [funded if one == "{org}" else one for one in CALLS[name]]
    given[n] = None
    with psycopg.connect(driver_url(shared_urls.app_url), autocommit=True) as app:
        marks = ", ".join(["%s"] * len(given))
        try:
            answer = app.execute(f"SELECT {name}({marks})::text", given).fetchone()[0]
        except psycopg.errors.IntegrityError:
            answer = "raised"
    # Then the argument is optional, or nothing has changed
    if everything(shared, funded) != before:
        assert (name, n) in {
            ("reserve_call_credits", 2),
            ("check_balance_and_deduct_asset_cost", 3),
            ("check_balance_and_deduct_asset_cost", 4),
        }, answer
    money(shared, funded)


def test_outstanding_amount_is_bounded_and_no_sum_overflows(shared, shared_urls, funded):
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        owner.execute(
            "SELECT ledger_store(ledger_append(w, 'owed', 'note', 1, 899999999999999999, 'owed',"
            " 'k', '', now()), now()) FROM wallets w WHERE organization_id = %s",
            (funded,),
        )
    before = everything(shared, funded)
    assert commit(shared, funded, 102).outcome == "INVALID_AMOUNT"
    assert everything(shared, funded) == before
    assert commit(shared, funded, 101).owed_micros == 900 * BIG
    assert correct(shared, funded, -1).outcome == "INSUFFICIENT_FUNDS"
