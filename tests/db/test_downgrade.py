"""Downgrades: through every revision, and refused while rows would be lost."""

from __future__ import annotations

import hashlib
import shutil

import psycopg
import pytest
from psycopg import sql

import db.downgrade
import db.migrate
from db.address import driver_url
from db.downgrade import RowsDoNotFit, RowsWouldBeLost, WrongDatabase
from db.engine import Database
from db.migrate import migrate, revisions
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.test_migrations import schema
from tests.support.world import make_organization

#: All revisions, oldest first. Tests that go through all of them cover later ones, too.
REVISIONS = revisions()
BODIES = """
    SELECT oid::regprocedure::text, md5(prosrc), prosecdef::text FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace ORDER BY 1
"""


def full_schema(url):
    with psycopg.connect(driver_url(url)) as connection:
        bodies = {str(row) for row in connection.execute(BODIES).fetchall()}
    # The numbers in type names change with each migration.
    return {"".join(c for c in row if not c.isdigit()) for row in schema(url)} | bodies


def revision_of(url):
    with psycopg.connect(driver_url(url)) as connection:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return rows[0][0] if rows else "base"


def name_of(url):
    with psycopg.connect(driver_url(url)) as connection:
        return connection.info.dbname


def contents(url):
    """Return each table's number of rows and a hash of them."""
    found = {}
    with psycopg.connect(driver_url(url)) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind = 'r' ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(
                sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
            ).fetchall()
            digest = hashlib.sha256("\n".join(sorted(row[0] for row in rows)).encode()).hexdigest()
            found[table] = (len(rows), digest)
    return found


@pytest.fixture
def with_money(migrated_url):
    """A database at the newest revision with a wallet of 5.00 USD and a rate."""
    database = Database(derive_app_url(migrated_url, PASSWORD), name="test", pool_size=1)
    organization_id = make_organization(database, micros=5_000_000)
    database.close()
    with psycopg.connect(driver_url(migrated_url)) as connection:
        connection.execute(
            "INSERT INTO call_rates (organization_id, route, micros_per_minute, increment_seconds,"
            " minimum_micros, set_by, set_why, set_at)"
            " VALUES (%s, 'default', 600000, 60, 0, 'test', 'test', now())",
            [organization_id],
        )
    return migrated_url


def test_downgrade_gives_the_schema_of_each_revision(empty_url):
    # Given the schema that each revision's upgrade makes
    made = {"base": full_schema(empty_url)}
    for revision in REVISIONS:
        assert migrate(empty_url, revision) == revision
        made[revision] = full_schema(empty_url)
    # When the database goes back step by step, Then each schema is the same
    for revision in ["base", *REVISIONS[:-1]][::-1]:
        assert migrate(empty_url, revision) == revision
        assert full_schema(empty_url) == made[revision], revision
        assert revision_of(empty_url) == revision
    # And it can go forward again
    assert migrate(empty_url) == REVISIONS[-1]
    assert full_schema(empty_url) == made[REVISIONS[-1]]


def test_migrate_to_a_later_revision_goes_forward(empty_url):
    assert migrate(empty_url, REVISIONS[0]) == REVISIONS[0]
    assert migrate(empty_url, REVISIONS[1]) == REVISIONS[1]
    assert migrate(empty_url, REVISIONS[1]) == REVISIONS[1]
    assert revision_of(empty_url) == REVISIONS[1]


@pytest.mark.parametrize("revision", ["base", "0001"])
def test_downgrade_is_refused_when_rows_would_be_lost(with_money, revision):
    before = (full_schema(with_money), contents(with_money), revision_of(with_money))
    with pytest.raises(RowsWouldBeLost) as refused:
        migrate(with_money, revision)
    # The error names the tables that would be dropped, with their rows, and no others
    lost = dict(refused.value.losses)
    assert lost["call_rates"] == 1
    assert ("wallet_entries" in lost) == (revision == "base")
    if revision == "base":
        assert (lost["wallet_entries"], lost["wallets"], lost["organizations"]) == (2, 1, 1)
    assert "call_rates (1 row)" in str(refused.value)
    assert f"--destroy {name_of(with_money)}" in str(refused.value)
    assert (full_schema(with_money), contents(with_money), revision_of(with_money)) == before


@pytest.mark.parametrize("revision", ["base", *REVISIONS[:-1]])
def test_downgrade_destroys_rows_when_the_database_is_named(with_money, revision):
    before = contents(with_money)
    assert migrate(with_money, revision, destroy=name_of(with_money)) == revision
    assert revision_of(with_money) == revision
    # What the older revision can store is unchanged
    if revision != "base":
        kept = contents(with_money)
        assert kept["wallet_entries"][0] == before["wallet_entries"][0] == 2
        assert kept["wallets"][0] == 1
    assert migrate(with_money) == REVISIONS[-1]


def test_destroy_is_refused_when_it_names_another_database(with_money):
    before = contents(with_money)
    with pytest.raises(WrongDatabase):
        migrate(with_money, "base", destroy="holdfast_of_somebody_else")
    assert contents(with_money) == before


@pytest.fixture
def one_more(monkeypatch, tmp_path, migrated_url):
    """Add a revision to those of the product, with the given SQL forward and back."""
    folder = tmp_path / "migrations"
    shutil.copytree(db.migrate.SCRIPTS, folder)

    def add(forward, back):
        (folder / "versions" / "9999_more.py").write_text(
            "from alembic import op\n"
            f"revision = '9999'\ndown_revision = {REVISIONS[-1]!r}\n"
            f"def upgrade():\n    op.execute({forward!r})\n"
            f"def downgrade():\n    op.execute({back!r})\n"
        )
        monkeypatch.setattr(db.migrate, "SCRIPTS", folder)
        assert migrate(migrated_url) == "9999"
        database = Database(derive_app_url(migrated_url, PASSWORD), name="test", pool_size=1)
        make_organization(database)
        database.close()
        return migrated_url

    return add


def test_downgrade_is_refused_when_a_column_holds_values(one_more):
    url = one_more(
        "ALTER TABLE organizations ADD seat integer NOT NULL DEFAULT 7, ADD vip boolean",
        "ALTER TABLE organizations DROP seat, DROP vip",
    )
    # A column with only default values loses nothing: the next upgrade restores it
    assert migrate(url, REVISIONS[-1]) == REVISIONS[-1]
    migrate(url)
    with psycopg.connect(driver_url(url)) as connection:
        connection.execute("UPDATE organizations SET seat = 8")
    with pytest.raises(RowsWouldBeLost) as refused:
        migrate(url, REVISIONS[-1])
    assert refused.value.losses == [("organizations.seat", 1)]


def test_downgrade_is_refused_when_it_deletes_rows(one_more):
    url = one_more("SELECT 1", "DELETE FROM schedules")
    with psycopg.connect(driver_url(url)) as connection:
        connection.execute("INSERT INTO schedules VALUES ('prune', 3600, now(), NULL, NULL, now())")
    with pytest.raises(RowsWouldBeLost) as refused:
        migrate(url, REVISIONS[-1])
    assert refused.value.losses == [("schedules", 1)]


def test_downgrade_is_refused_when_a_row_breaks_an_older_constraint(one_more):
    url = one_more(
        "SELECT 1", "ALTER TABLE organizations ADD CONSTRAINT short CHECK (length(name) < 3)"
    )
    with pytest.raises(RowsDoNotFit, match="short"):
        migrate(url, REVISIONS[-1])
    assert revision_of(url) == "9999"


def test_downgrade_keeps_writers_out_between_count_and_drop(with_money, monkeypatch):
    # Given a writer that tries right after the rows of a table were counted
    count = db.downgrade._count_loss
    tried = []

    def write(connection, subject, table, condition):
        found = list(count(connection, subject, table, condition))
        if table == "call_terms":
            with psycopg.connect(driver_url(with_money)) as other:
                try:
                    other.execute("LOCK TABLE call_terms IN ROW EXCLUSIVE MODE NOWAIT")
                    tried.append("written")
                except psycopg.errors.LockNotAvailable:
                    tried.append("kept out")
        return iter(found)

    monkeypatch.setattr(db.downgrade, "_count_loss", write)
    with pytest.raises(RowsWouldBeLost):
        migrate(with_money, "0001")
    assert tried == ["kept out"]


def test_rows_of_running_processes_do_not_prevent_a_downgrade(migrated_url):
    with psycopg.connect(driver_url(migrated_url)) as connection:
        connection.execute(
            "INSERT INTO processes (id, kind, name, started_at, seen_at)"
            " VALUES ('prc_1', 'relay', 'host:1', now(), now())"
        )
    assert migrate(migrated_url, "0002") == "0002"


def test_merged_reservation_is_priced_when_the_database_goes_back(with_money):
    # Given a reservation that was merged into a call, which was charged for both
    with psycopg.connect(driver_url(with_money)) as connection:
        connection.execute(
            "INSERT INTO calls (organization_id, id, direction, status, origin, merged_into,"
            " currency, micros_per_minute, increment_seconds, minimum_micros, cost_micros,"
            " duration_ms, settled_by, settled_at, created_at)"
            " SELECT organization_id, 'c1', 'outbound', 'admitted', 'reserved', 'call_1', 'USD',"
            " 600000, 1, 0, 0, 0, 'merged', now(), now() FROM wallets LIMIT 1"
        )
    # When the database goes back to a version without merged calls
    before = REVISIONS[REVISIONS.index("0008") - 1]
    assert migrate(with_money, before, destroy=name_of(with_money)) == before
    # Then the reservation is not charged; it looks like one that was withdrawn or expired
    with psycopg.connect(driver_url(with_money)) as connection:
        rows = connection.execute("SELECT settled_by, cost_micros FROM calls").fetchall()
    assert rows == [("api", 0)]
