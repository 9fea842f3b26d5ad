"""Migrations: forward and back, models that match the tables, and serving logins."""

from __future__ import annotations

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from base.settings import SettingsError
from db.address import driver_url, sqlalchemy_url
from db.logins import check_serving_login, is_owner_login, set_password
from db.migrate import migrate, revisions
from db.models import Base
from db.models import calls as call_models  # noqa: F401  # its tables join the others'
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.support import at_once

_SCHEMA = """
    SELECT 'table', relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'column', attrelid::regclass::text || '.' || attname::text || ' ' || atttypid
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'constraint', conname::text || ' ' || pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'function', oid::regprocedure::text || ' ' || proacl::text
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'trigger', tgname::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'grant', relname::text || ' ' || coalesce(relacl::text, '') FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    UNION ALL SELECT 'type', typname::text FROM pg_type
        WHERE typnamespace = 'public'::regnamespace
"""


def schema(url):
    with psycopg.connect(driver_url(url)) as connection:
        rows = connection.execute(_SCHEMA).fetchall()
    return {row for row in map(str, rows) if "alembic" not in row}


def test_forward_back_to_base_and_forward_again_gives_the_same(empty_url):
    nothing = schema(empty_url)
    migrate(empty_url)
    first = schema(empty_url)
    assert len(first) > 100
    # When everything is downgraded
    migrate(empty_url, "base")
    # Then nothing is left behind, and it can be upgraded again
    assert schema(empty_url) == nothing
    migrate(empty_url)
    # The numbers in type names change with each migration.
    strip = {"".join(c for c in row if not c.isdigit()) for row in first}
    assert {"".join(c for c in row if not c.isdigit()) for row in schema(empty_url)} == strip


def test_existing_database_is_left_unchanged(empty_url):
    migrate(empty_url)
    first = schema(empty_url)
    migrate(empty_url)
    assert schema(empty_url) == first


def test_concurrent_migrations_run_in_turn(empty_url):
    assert at_once([lambda: migrate(empty_url)] * 3) == [revisions()[-1]] * 3
    assert any("wallet_entries" in row for row in schema(empty_url))


def test_models_match_the_tables(shared_urls):
    engine = create_engine(sqlalchemy_url(shared_urls.owner_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": _is_compared}
        )
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []


def _is_compared(_, name, kind, reflected, __):
    # The models omit keys, checks and these tables; everything else must match.
    unmapped = (
        "database_clock",
        "payment_references",
        "refused_deliveries",
        "refusal_counts",
        "wallet_operations",
    )
    return kind in ("table", "column") and not (
        reflected and kind == "table" and name in (*unmapped, "alembic_version")
    )


def test_wrong_model_is_found(shared_urls):
    # The comparison above must be able to fail. Here a table lacks one of its columns.
    engine = create_engine(sqlalchemy_url(shared_urls.owner_url))
    with engine.connect() as connection:
        transaction = connection.begin()
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN cause")
        connection.exec_driver_sql("ALTER TABLE brands ALTER COLUMN name DROP NOT NULL")
        context = MigrationContext.configure(connection, opts={"include_object": _is_compared})
        differences = compare_metadata(context, Base.metadata)
        transaction.rollback()
    engine.dispose()
    assert len(differences) == 2


def test_serving_login_is_accepted(shared_urls):
    check_serving_login(shared_urls.app_url)
    assert is_owner_login(shared_urls.owner_url)
    assert not is_owner_login(shared_urls.app_url)


def refusal(url):
    with pytest.raises(SettingsError) as caught:
        check_serving_login(url)
    line = str(caught.value)
    assert "\n" not in line
    assert "DATABASE_URL" in line
    assert PASSWORD not in line
    return line


def test_superuser_may_not_serve(shared_urls):
    assert "superuser or owner" in refusal(shared_urls.owner_url)


def test_role_that_may_act_as_the_owner_may_not_serve(shared_urls):
    with psycopg.connect(driver_url(shared_urls.owner_url), autocommit=True) as owner:
        owner.execute("CREATE ROLE half_owner LOGIN IN ROLE holdfast_owner")
        try:
            set_password(shared_urls.owner_url, "half_owner", PASSWORD)
            url = derive_app_url(shared_urls.owner_url, PASSWORD)
            url = url.replace("holdfast_app:", "half_owner:")
            assert "superuser or owner" in refusal(url)
        finally:
            owner.execute("DROP ROLE half_owner")


def test_unmigrated_database_cannot_serve(shared_urls, empty_url):
    database = driver_url(empty_url).split("?", maxsplit=1)[0].rsplit("/", 1)[1]
    before, query = shared_urls.app_url.split("?")
    url = f"{before.rsplit('/', 1)[0]}/{database}?{query}"
    assert refusal(url).endswith("not migrated; run: holdfast migrate")


def test_unreachable_database_is_named_without_its_password(shared_urls):
    # A wrong password must not be shown either.
    wrong = shared_urls.app_url.replace(PASSWORD, "wrong-secret")
    assert "wrong-secret" not in refusal(wrong)
    assert "cannot connect" in refusal("postgresql://holdfast_app@/x?host=/nowhere")


def test_invalid_address_is_refused_without_showing_its_secret():
    line = refusal("postgers//holdfast_app:some-secret@db/holdfast")
    assert "some-secret" not in line


def test_migration_revokes_the_publics_right_to_create_functions(empty_url):
    # Given a database as PostgreSQL made it before version 15
    with psycopg.connect(driver_url(empty_url), autocommit=True) as owner:
        owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    # When it is migrated
    migrate(empty_url)
    # Then the serving login may create nothing there
    with psycopg.connect(driver_url(empty_url), autocommit=True) as owner:
        owner.execute("SET ROLE holdfast_app")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute("CREATE FUNCTION concat_ws(text, text) RETURNS text LANGUAGE sql AS ''")
