"""The migrate command: how it reports the revision, and what it refuses."""

from __future__ import annotations

import psycopg

from base.problems.operators import ROWS_WOULD_BE_LOST, WRONG_DATABASE
from db.address import driver_url
from db.migrate import revisions


def revision_of(urls):
    with psycopg.connect(driver_url(urls.owner_url)) as connection:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return rows[0][0] if rows else "base"


def entries_of(urls):
    with psycopg.connect(driver_url(urls.owner_url)) as connection:
        return connection.execute("SELECT count(*) FROM wallet_entries").fetchone()[0]


def test_migrate_goes_back_and_prints_the_revision(run, urls):
    assert run("migrate", "0001") == (0, "migrated to 0001\n", "")
    assert revision_of(urls) == "0001"
    assert run("migrate") == (0, f"migrated to {revisions()[-1]}\n", "")
    assert run("migrate", "base") == (0, "migrated to base\n", "")
    assert revision_of(urls) == "base"


def test_migrate_refuses_to_drop_money_in_one_line(run, urls, organization_id):
    code, out, err = run("migrate", "base")
    assert (code, out) == (1, "")
    assert err.startswith(f"holdfast: ROWS_WOULD_BE_LOST: {ROWS_WOULD_BE_LOST.title[:-1]}: nothing")
    assert err.count("\n") == 1
    assert "wallet_entries (2 rows)" in err
    assert entries_of(urls) == 2


def test_migrate_drops_money_only_when_its_database_is_named(run, urls, organization_id):
    with psycopg.connect(driver_url(urls.owner_url)) as connection:
        name = connection.info.dbname
    code, _, err = run("migrate", "base", "--destroy", "holdfast")
    assert (code, entries_of(urls)) == (1, 2)
    assert err.startswith(f"holdfast: WRONG_DATABASE: {WRONG_DATABASE.title[:-1]}: nothing")
    assert "--destroy names holdfast" in err
    assert run("migrate", "base", "--destroy", name) == (0, "migrated to base\n", "")
