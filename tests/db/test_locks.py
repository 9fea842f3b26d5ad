"""Each lock: it is taken, waits for its like, and does not block foreign keys."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from base.ids import new_id
from db import locks
from db.busy import DatabaseBusy
from db.debits.batch import Debit
from db.engine import clock
from db.locks import OrganizationNotFound
from domain import operator_actions, organizations
from domain.wallet import debits
from domain.wallet import operations as wallets
from tests.db.support import holding, hurried
from tests.support.world import make_organization


@pytest.fixture
def made(shared):
    """IDs of an organization with one row of everything that can be locked."""
    organization_id = make_organization(shared, micros=5)

    def work(session):
        now = clock(session)
        sid = "AC" + secrets.token_hex(16)
        brand_id = organizations.create_brand(
            session, organization_id, name="b", twilio_subaccount_sid=sid, now=now
        )
        session.execute(
            text(
                "INSERT INTO subscriptions (id, organization_id, provider, external_id, status,"
                " created_at) VALUES (:id, :org, 'paypal', :id, 'active', :now)"
            ),
            {"id": new_id("sub"), "org": organization_id, "now": now},
        )
        campaign_id = organizations.create_campaign(session, brand_id, name="c", now=now)
        operator_actions.start_campaign(session, campaign_id, now)
        return {"org": organization_id, "brand": brand_id}

    return shared.run(work)


LOCKS = {
    "organization": lambda session, ids: locks.lock_organization(session, ids["org"]),
    "subscriptions": lambda session, ids: locks.lock_subscriptions(session, ids["org"]),
    "wallet": lambda session, ids: locks.lock_wallet(session, ids["org"]),
    "campaigns": lambda session, ids: locks.lock_campaigns(session, ids["org"]),
    "brands": lambda session, ids: locks.lock_brands(session, ids["org"]),
    "brand": lambda session, ids: locks.lock_brand(session, ids["brand"]),
}


@pytest.mark.parametrize("name", LOCKS)
def test_second_lock_waits_for_the_first(shared, made, name):
    lock = LOCKS[name]
    with holding(shared, lambda session: lock(session, made)), pytest.raises(DatabaseBusy):
        shared.run(lambda session: (hurried(session), lock(session, made)))
    assert shared.run(lambda session: lock(session, made))


@pytest.mark.parametrize("name", ["organization", "brand", "brands"])
def test_locked_parent_does_not_block_a_childs_foreign_key(shared, made, name):
    def insert_child(session):
        hurried(session)
        session.execute(
            text(
                "INSERT INTO campaigns (id, organization_id, brand_id, name, status, created_at)"
                " VALUES (:id, :org, :brand, 'c', 'draft', now())"
            ),
            {"id": new_id("cmp"), **made},
        )

    with holding(shared, lambda session: LOCKS[name](session, made)):
        shared.run(insert_child)


@pytest.mark.parametrize("name", ["organization", "subscriptions", "wallet", "campaigns", "brands"])
def test_lock_returns_the_newest_row_when_it_was_read_before(shared, made, name):
    columns = {
        "organization": ("organizations", "name", "id", "'now'"),
        "subscriptions": ("subscriptions", "plan_external_id", "organization_id", "'now'"),
        "wallet": ("", "", "", ""),
        "campaigns": ("campaigns", "name", "organization_id", "'now'"),
        "brands": ("brands", "name", "organization_id", "'now'"),
    }
    table, column, key, new = columns[name]

    def change(session):
        if name == "wallet":
            session.execute(
                text("SELECT wallet_credit(:org, 'k', 7, 'USD', 'credit', 'c', '', now())"), made
            )
        else:
            session.execute(text(f"UPDATE {table} SET {column} = {new} WHERE {key} = :org"), made)

    def value(found):
        row = found[0] if isinstance(found, list) else found
        return row.balance_micros if name == "wallet" else getattr(row, column)

    def work(session):
        # Given a row that this session has already read and keeps
        kept = LOCKS[name](session, made)
        before = value(kept)
        session.commit()
        # When another session changes the row, and this session locks it
        shared.run(change)
        return before, value(LOCKS[name](session, made))

    before, after = shared.run(work)
    assert before != after
    assert after == (12 if name == "wallet" else "now")


def test_locking_a_missing_row_raises_or_returns_none(shared):
    with pytest.raises(OrganizationNotFound):
        shared.run(lambda session: locks.lock_organization(session, "org_none"))
    assert shared.run(lambda session: locks.lock_wallet(session, "org_none")) is None
    assert shared.run(lambda session: locks.lock_brand(session, "brd_none")) is None
    assert shared.run(lambda session: locks.lock_campaigns(session, "org_none")) == []


def test_only_brands_with_a_subaccount_and_runnable_campaigns_are_locked(shared, made):
    def work(session):
        now = clock(session)
        organizations.create_brand(
            session, made["org"], name="bare", twilio_subaccount_sid=None, now=now
        )
        organizations.create_campaign(session, made["brand"], name="draft", now=now)
        return (
            [brand.name for brand in locks.lock_brands(session, made["org"])],
            [campaign.name for campaign in locks.lock_campaigns(session, made["org"])],
        )

    assert shared.run(work) == (["b"], ["c"])


def spend(session, organization_id):
    return wallets.debit(
        session, organization_id, key="k", amount_micros=1, currency="USD", now=clock(session)
    )


@pytest.mark.parametrize("lock", [locks.lock_wallet, spend], ids=["lock", "ledger"])
def test_long_wait_for_a_wallet_is_logged(shared, made, monkeypatch, lock):
    monkeypatch.setattr(locks, "LOCK_WAIT_SECONDS", 0.05)
    org = made["org"]
    with (
        capture_logs() as logs,
        holding(shared, lambda session: locks.lock_wallet(session, org)),
        pytest.raises(DatabaseBusy),
    ):
        shared.run(lambda session: (hurried(session), lock(session, org)))
    (line,) = [one for one in logs if one["event"] == "lock_wait"]
    assert (line["organization"], line["log_level"]) == (org, "warning")
    assert line["waited_ms"] >= 100


def test_long_wait_of_a_combined_debit_is_logged(shared, made, monkeypatch):
    monkeypatch.setattr(locks, "LOCK_WAIT_SECONDS", 0.05)
    debit = Debit(made["org"], "k", 1, "USD", "messages")
    with (
        capture_logs() as logs,
        holding(shared, lambda session: locks.lock_wallet(session, made["org"])),
        pytest.raises(DatabaseBusy),
    ):
        debits.debit_now(shared, debit)
    assert made["org"] in {one["organization"] for one in logs if one["event"] == "lock_wait"}


def test_short_wait_for_a_wallet_is_not_logged(shared, made):
    with capture_logs() as logs:
        shared.run(lambda session: locks.lock_wallet(session, made["org"]))
    assert not [one for one in logs if one["event"] == "lock_wait"]
