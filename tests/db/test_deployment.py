"""What `verify deployment` finds: each object that is gone, each protection that is open.

Each change is made as a superuser in a transaction that is rolled back: roles belong to the whole
server.
"""

from __future__ import annotations

import re

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from cli import ROOT
from db.address import sqlalchemy_url
from db.data_model import COUNTERPARTS
from db.deployment import APPEND_ONLY_TABLES, LEDGER_TABLES, TRIGGERS, defects

#: The tests' own server is not durable, to be fast; that it says so is a test of its own.
SETTING = "setting "


@pytest.fixture
def found_after(urls):
    """Makes the changes and gives what is found then; nothing of it stays."""
    engine = create_engine(sqlalchemy_url(urls.owner_url))

    def look(*changes: str) -> list[str]:
        with engine.connect() as connection:
            for change in changes:
                connection.execute(text(change))
            found = [str(one) for one in defects(Session(bind=connection))]
            connection.rollback()
        return [one for one in found if not one.startswith(SETTING)]

    yield look
    engine.dispose()


def test_a_migrated_database_has_everything_also_in_the_eyes_of_the_login_that_serves(
    found_after, database
):
    assert found_after() == []
    found = database.run(lambda session: [str(one) for one in defects(session)])
    assert [one for one in found if not one.startswith(SETTING)] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DROP TABLE campaigns CASCADE", "table campaigns: missing"),
        ("ALTER TABLE brands RENAME twilio_subaccount_sid TO sid", "column brands.twilio_suba"),
        ("DROP FUNCTION cleanup_expired_reservations", "function cleanup_expired_reservations: "),
        ("DROP INDEX call_holds_open", "index call_holds_open: missing"),
        (
            "ALTER TABLE wallets DROP CONSTRAINT wallet_equals_its_newest_entry",
            "constraint wallets.wallet_equals_its_newest_entry: missing",
        ),
        (
            "ALTER TABLE wallet_operations DROP CONSTRAINT wallet_operations_pkey",
            "constraint wallet_operations.wallet_operations_pkey: missing",
        ),
        (
            "ALTER TABLE wallet_entries DISABLE TRIGGER wallet_entries_append_only",
            "trigger wallet_entries.wallet_entries_append_only: missing, disabled",
        ),
        (
            "ALTER TABLE wallets ADD CONSTRAINT odd CHECK (entry_no >= 0) NOT VALID",
            "constraint wallets.odd: is not valid",
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'call_holds_open'::regclass",
            "index call_holds_open: ",
        ),
        (
            "ALTER FUNCTION wallet_lock RESET search_path",
            "function wallet_lock(text): its search_path is not fixed",
        ),
        (
            "GRANT EXECUTE ON FUNCTION wallet_credit TO PUBLIC",
            "function wallet_credit(text,text,bigint,text,text,text,text,timestamp with time zone):"
            " everybody may execute it",
        ),
        (
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "schema public: holdfast_app may make functions",
        ),
        ("ALTER ROLE holdfast_owner LOGIN", "role holdfast_owner: may log in"),
        ("ALTER ROLE holdfast_app BYPASSRLS", "role holdfast_app: is a superuser, passes by"),
        ("GRANT holdfast_owner TO holdfast_app", "role holdfast_app: acts as holdfast_owner"),
        ("ALTER ROLE holdfast_app RESET lock_timeout", "role holdfast_app: has no lock_timeout"),
        (
            "ALTER ROLE holdfast_app SET statement_timeout = 0",
            "role holdfast_app: has no statement_timeout",
        ),
    ],
)
def test_each_thing_that_is_gone_or_open_is_found(found_after, change, told):
    assert any(line.startswith(told) for line in found_after(change)), found_after(change)


@pytest.mark.parametrize("table", LEDGER_TABLES)
@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"])
def test_a_ledger_table_that_the_application_may_write_is_found(found_after, table, privilege):
    found = found_after(f"GRANT {privilege} ON {table} TO holdfast_app")
    assert found == [f"table {table}: holdfast_app may {privilege} it around the functions"]


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
@pytest.mark.parametrize("privilege", ["UPDATE", "DELETE", "TRUNCATE", "TRIGGER"])
def test_a_record_of_acts_that_the_application_may_change_is_found(found_after, table, privilege):
    found = found_after(f"GRANT {privilege} ON {table} TO holdfast_app")
    assert found == [f"table {table}: holdfast_app may {privilege} it and not only add to it"]


def test_the_triggers_that_are_there_are_those_that_are_looked_for(database):
    there = database.run(
        lambda session: (
            session.execute(
                text(
                    "SELECT tgrelid::regclass || '.' || tgname FROM pg_trigger JOIN pg_class c"
                    " ON c.oid = tgrelid WHERE c.relnamespace = 'public'::regnamespace"
                    " AND NOT tgisinternal"
                )
            )
            .scalars()
            .all()
        )
    )
    assert sorted(there) == sorted(TRIGGERS)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_trigger_that_is_gone_is_found(found_after, trigger):
    table, name = trigger.split(".")
    assert found_after(f"DROP TRIGGER {name} ON {table}") == [
        f"trigger {trigger}: missing, disabled or not valid"
    ]


def test_a_missing_role_is_found_and_nothing_breaks(found_after):
    assert found_after("ALTER ROLE holdfast_readonly RENAME TO somebody") == [
        "role holdfast_readonly: missing"
    ]


def test_a_server_that_may_lose_a_commit_is_found(database):
    def look(session: Session) -> list[str]:
        session.execute(text("SET LOCAL synchronous_commit = off"))
        return [str(one) for one in defects(session)]

    assert "setting synchronous_commit: is off, not on" in database.run(look)


def test_an_empty_database_is_told_and_not_an_error(empty_url):
    engine = create_engine(sqlalchemy_url(empty_url))
    with engine.connect() as connection:
        found = [str(one) for one in defects(Session(bind=connection))]
    engine.dispose()
    assert "table wallets: missing, disabled or not valid" in found


def test_the_document_for_people_tells_the_same_list():
    rows = re.findall(
        r"^\| `([^`]+)` \| (\w+) \| `([^`]+)` \|",
        (ROOT / "docs" / "data-model.md").read_text(),
        re.MULTILINE,
    )
    assert rows == [tuple(one) for one in COUNTERPARTS]
