"""What holds cause and what guards them: enforcement, roles, rebuilds, debt."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from base.enums import FreezeReason
from base.operators import Operator
from cli.main import app
from db.address import driver_url
from db.locks import OrganizationNotFound
from domain.enforcement import enforce_entitlement
from tests.domain.support import (
    T0,
    active_freezes,
    campaign,
    correct,
    credit,
    debit,
    entries,
    forget_jobs,
    make_brand,
    make_campaign,
    staged,
    subscribe,
)
from tests.domain.wallet.hold_support import (
    buy,
    commit,
    everything,
    expire,
    extend,
    money,
    release,
    reserve,
    set_limit,
    settle,
)
from tests.domain.wallet.support import as_owner, bare_organization, freeze, rebuild, unfreeze

ENFORCE = "enforce_organization"


# Enforcement


def follows(database, org, act):
    """Count how often an action stages enforcement."""
    forget_jobs(database, org)
    act()
    return len(staged(database, org, ENFORCE))


def test_every_crossing_of_zero_by_available_stages_one_enforcement(shared, funded):
    def count(act):
        return follows(shared, funded, act)

    assert count(lambda: reserve(shared, funded, 60)) == 0
    assert count(lambda: reserve(shared, funded, 60)) == 0
    assert count(lambda: extend(shared, funded, 1, 40)) == 1
    assert count(lambda: extend(shared, funded, 1, 40)) == 0
    assert count(lambda: commit(shared, funded, 99)) == 1
    assert count(lambda: commit(shared, funded, 99)) == 0
    assert count(lambda: reserve(shared, funded, 1, "c2")) == 1
    assert count(lambda: release(shared, funded, "c2")) == 1
    assert count(lambda: release(shared, funded, "c2")) == 0
    assert count(lambda: reserve(shared, funded, 1, "c3")) == 1
    assert count(lambda: expire(shared, funded, "c3")) == 1
    assert count(lambda: expire(shared, funded, "c3")) == 0
    assert count(lambda: buy(shared, funded, 1, "a")) == 1
    assert count(lambda: reserve(shared, funded, 1, "c4")) == 0


def test_freeze_placed_by_a_shortfall_or_lifted_by_a_payment_is_enforced(shared, funded):
    # Given that available stays at zero all the time, so that it does not cross zero
    reserve(shared, funded, 100)
    assert follows(shared, funded, lambda: commit(shared, funded, 130)) == 1
    assert active_freezes(shared, funded) == {"call_shortfall"}
    assert follows(shared, funded, lambda: credit(shared, funded, 20)) == 0
    assert follows(shared, funded, lambda: credit(shared, funded, 10)) == 1
    assert active_freezes(shared, funded) == set()
    commit(shared, funded, 5, "c2")
    assert follows(shared, funded, lambda: correct(shared, funded, 5)) == 1


@pytest.mark.parametrize(
    "give_back",
    [
        lambda db, org: [release(db, org, call) for call in ("c1", "c2")],
        lambda db, org: [commit(db, org, 0, call) for call in ("c1", "c2")],
        lambda db, org: expire(db, org, "c1", "c2"),
    ],
)
def test_freeze_that_ends_with_a_returned_hold_is_enforced(shared, org, give_back):
    # Given 100 held in two holds and outstanding after a refund: available is 0 before and after
    settle(shared, org, 100)
    reserve(shared, org, 50, "c1")
    reserve(shared, org, 50, "c2")
    settle(shared, org, 100, 100)
    assert (money(shared, org), active_freezes(shared, org)) == (
        (100, 100, 100),
        {"refund_shortfall"},
    )
    # When both are returned, and only the second pays the rest
    assert follows(shared, org, lambda: give_back(shared, org)) == 1
    assert (money(shared, org), active_freezes(shared, org)) == ((0, 0, 0), set())


def test_campaigns_pause_while_a_hold_takes_the_last_money(shared, org):
    # Given a running campaign
    subscribe(shared, org)
    credit(shared, org, 100)
    running = make_campaign(shared, make_brand(shared, org))

    def enforced():
        assert staged(shared, org, ENFORCE)
        forget_jobs(shared, org)
        shared.run(lambda session: enforce_entitlement(session, org, T0))
        found = campaign(shared, running)
        return found.status, found.pause_reason

    # When a call takes all money, then more than that, and then the debt is paid
    reserve(shared, org, 100)
    assert enforced() == ("paused", "wallet_depleted")
    commit(shared, org, 130)
    assert enforced() == ("paused", "wallet_frozen")
    credit(shared, org, 30)
    assert enforced() == ("paused", "wallet_depleted")
    credit(shared, org, 1)
    assert enforced() == ("running", None)


# Guards


AS_APP = {
    "make a hold": (
        "INSERT INTO call_holds (organization_id, call_id, reserved_micros, status, expires_at,"
        " created_at) VALUES (%(org)s, 'c9', 1, 'open', now(), now())"
    ),
    "settle a hold": "UPDATE call_holds SET status = 'released' WHERE organization_id = %(org)s",
    "remove a hold": "DELETE FROM call_holds WHERE organization_id = %(org)s",
    "truncate holds": "TRUNCATE call_holds",
    "lock a hold": "SELECT FROM call_holds FOR UPDATE",
    "give back around the door": (
        "SELECT hold_give_back(w, 'c1', 'released', now()) FROM wallets w"
    ),
}


@pytest.mark.parametrize("name", AS_APP)
def test_serving_role_cannot_change_holds(shared, shared_urls, funded, name):
    reserve(shared, funded, 60)
    before = everything(shared, funded)
    with (
        psycopg.connect(driver_url(shared_urls.app_url), autocommit=True) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute(AS_APP[name], {"org": funded})
    assert everything(shared, funded) == before


AS_SUPERUSER = {
    "settle it again": "UPDATE call_holds SET status = 'expired' WHERE call_id = 'released'",
    "open it again": (
        "UPDATE call_holds SET status = 'open', settled_at = NULL, released_micros = 0"
        " WHERE call_id = 'released'"
    ),
    "bill it again": "UPDATE call_holds SET billed_micros = 6 WHERE call_id = 'billed'",
    "bill a late one again": "UPDATE call_holds SET billed_micros = 6 WHERE call_id = 'late'",
    "remove one": "DELETE FROM call_holds WHERE call_id = 'open'",
    "truncate all": "TRUNCATE call_holds",
    "charge without a bill": (
        "UPDATE call_holds SET status = 'committed', captured_micros = 10, settled_at = now()"
        " WHERE call_id = 'open'"
    ),
    "capture more than the bill": (
        "UPDATE call_holds SET status = 'committed', captured_micros = 10, billed_micros = 9,"
        " settled_at = now() WHERE call_id = 'open'"
    ),
    "lose some of it": (
        "UPDATE call_holds SET status = 'released', released_micros = 9, settled_at = now()"
        " WHERE call_id = 'open'"
    ),
    "bill it while open": "UPDATE call_holds SET billed_micros = 1 WHERE call_id = 'open'",
    "make it endless": "UPDATE call_holds SET expires_at = 'infinity' WHERE call_id = 'open'",
    "pair a provider's call twice": (
        "INSERT INTO call_holds (organization_id, call_id, provider_call_id, reserved_micros,"
        " status, expires_at, created_at)"
        " SELECT organization_id, 'twice', 'v1', 1, 'open', now(), now() FROM call_holds"
        " WHERE call_id = 'open'"
    ),
    "hold a call twice": (
        "INSERT INTO call_holds (organization_id, call_id, reserved_micros, status, expires_at,"
        " created_at) SELECT organization_id, call_id, 1, 'open', now(), now() FROM call_holds"
        " WHERE call_id = 'open'"
    ),
}


@pytest.mark.parametrize("name", AS_SUPERUSER)
def test_superuser_cannot_break_the_holds_guards(shared, shared_urls, funded, name):
    # Given an open hold, a released one, one that was charged and one that was charged late
    reserve(shared, funded, 10, "open", provider_call_id="v1")
    for call in ("released", "late"):
        reserve(shared, funded, 10, call)
        release(shared, funded, call)
    commit(shared, funded, 5, "late")
    commit(shared, funded, 5, "billed")
    before = everything(shared, funded)
    mine = " AND organization_id = %(org)s" if "WHERE" in AS_SUPERUSER[name] else ""
    with (
        psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner,
        pytest.raises((errors.InsufficientPrivilege, errors.IntegrityError)),
    ):
        owner.execute(AS_SUPERUSER[name] + mine, {"org": funded})
    assert everything(shared, funded) == before


# Rebuilding


@pytest.mark.parametrize("held", [0, 59, 90])
def test_held_is_rebuilt_from_the_open_holds(shared, shared_urls, owner, funded, held):
    # Given two open holds among settled ones, and a wallet whose `held` was changed
    reserve(shared, funded, 20, "c1")
    reserve(shared, funded, 40, "c2")
    commit(shared, funded, 10, "c3")
    reserve(shared, funded, 10, "c4")
    release(shared, funded, "c4")
    as_owner(
        shared_urls, f"UPDATE wallets SET held_micros = {held} WHERE organization_id = '{funded}'"
    )
    # When it is rebuilt, Then held is their sum again, and enforcement is staged
    assert follows(shared, funded, lambda: rebuild(owner, funded)) == 1
    assert money(shared, funded) == (90, 60, 0)
    assert f"held {held}, " in entries(shared, funded)[-1].note


def test_rebuild_that_frees_money_pays_the_outstanding_amount(shared, shared_urls, owner, org):
    settle(shared, org, 100)
    as_owner(shared_urls, f"UPDATE wallets SET held_micros = 100 WHERE organization_id = '{org}'")
    settle(shared, org, 100, 100)
    rebuild(owner, org)
    assert (money(shared, org), active_freezes(shared, org)) == ((0, 0, 0), set())


def test_holds_that_the_entries_do_not_cover_need_an_operator(shared, shared_urls, owner, funded):
    # Given a hold that is missing from `held`, and whose money was spent
    reserve(shared, funded, 60)
    as_owner(shared_urls, f"UPDATE wallets SET held_micros = 0 WHERE organization_id = '{funded}'")
    debit(shared, funded, 41)
    before = everything(shared, funded)
    with pytest.raises(DBAPIError, match="do not fit its entries: held 60, balance 59"):
        rebuild(owner, funded)
    assert everything(shared, funded) == before
    as_owner(
        shared_urls, f"UPDATE wallets SET debt_limit_micros = 1 WHERE organization_id = '{funded}'"
    )
    rebuild(owner, funded)
    assert money(shared, funded) == (59, 60, 0)


def test_a_rebuild_refuses_entries_with_a_gap_that_moved_no_money(
    shared, shared_urls, owner, funded
):
    # Given a wallet whose entry about a freeze was deleted: the amounts still add up
    freeze(shared, funded)
    unfreeze(shared, funded)
    gone = f"DELETE FROM wallet_entries WHERE organization_id = '{funded}' AND kind = 'freeze'"
    as_owner(shared_urls, gone, broken=True)
    before = everything(shared, funded)
    with pytest.raises(DBAPIError, match="do not add up: sum 100, newest 100, 3 entries of 4"):
        rebuild(owner, funded)
    assert everything(shared, funded) == before


# The debt limit


def test_debt_limit_is_approved_by_an_entry_with_name_and_reason(shared, funded):
    outcome = set_limit(shared, funded, 50)
    assert (outcome.ok, outcome.entry_no, outcome.available_micros) == (True, 2, 100)
    newest = entries(shared, funded)[-1]
    assert (newest.kind, newest.direction) == ("debt_limit", "note")
    assert newest.note == "ann: good customer (from 0 to 50)"
    before = everything(shared, funded)
    assert set_limit(shared, funded, 50, operator=Operator("ann", "again")).replayed
    assert everything(shared, funded) == before


def test_debt_limit_is_never_set_below_the_current_debt(shared, funded):
    set_limit(shared, funded, 50)
    commit(shared, funded, 140)
    before = everything(shared, funded)
    for limit in (0, 39):
        assert set_limit(shared, funded, limit).outcome == "DEBT_ABOVE_LIMIT"
    assert everything(shared, funded) == before
    assert set_limit(shared, funded, 40).ok
    assert commit(shared, funded, 1, "c2").owed_micros == 1
    # A higher limit pays nothing that is already outstanding
    assert set_limit(shared, funded, 60).owed_micros == 1
    assert money(shared, funded) == (-40, 0, 1)


@pytest.mark.parametrize("limit", [-1, 10**15 + 1, 10**30])
def test_a_debt_limit_out_of_bounds_is_refused(shared, funded, limit):
    before = everything(shared, funded)
    assert set_limit(shared, funded, limit).outcome == "INVALID_AMOUNT"
    assert everything(shared, funded) == before
    assert set_limit(shared, funded, 10**15).ok


def test_a_debt_limit_needs_an_organization_with_a_wallet(shared):
    with pytest.raises(OrganizationNotFound):
        set_limit(shared, "org_none", 5)
    assert set_limit(shared, bare_organization(shared), 5).outcome == "WALLET_NOT_FOUND"


def test_a_frozen_wallets_debt_limit_may_be_changed(shared, funded):
    freeze(shared, funded, FreezeReason.MANUAL)
    assert set_limit(shared, funded, 5).ok
    assert unfreeze(shared, funded) == 1


def test_command_approves_a_debt_limit_and_refuses_in_one_line(
    shared, shared_urls, funded, monkeypatch
):
    monkeypatch.setenv("DATABASE_URL", shared_urls.app_url)
    monkeypatch.setenv("REDIS_URL", shared_urls.redis_url)

    def run(*options):
        done = CliRunner().invoke(app, ["wallet", "debt-limit", funded, *options])
        return done.exit_code, done.stdout, done.stderr

    options = ("--why", "good customer", "--by", "ann")
    assert run("25.50", *options) == (0, "approved; recorded in entry 2\n", "")
    assert run("25.50", *options) == (0, "already set; nothing changed\n", "")
    assert entries(shared, funded)[-1].note == "ann: good customer (from 0 to 25500000)"
    assert commit(shared, funded, 25_500_100).owed_micros == 0
    malformed = "INVALID_AMOUNT: The amount is malformed or out of bounds"
    above = "The wallet is further below zero than the new debt limit allows."
    for amount, line in (
        ("25", f"DEBT_ABOVE_LIMIT: {above}"),
        ("-1", f"{malformed}."),
        ("abc", f"{malformed}: 'abc' is not a plain decimal"),
    ):
        assert run(amount, *options) == (1, "", f"holdfast: {line}\n")
    assert run("25", "--why", " ")[2].startswith("holdfast: REASON_REQUIRED")
