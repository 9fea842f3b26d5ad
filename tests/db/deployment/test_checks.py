"""`verify deployment` finds what is missing, changed or too widely granted.

A superuser makes each change in a transaction that is rolled back, because roles belong to the
whole server.
"""

from __future__ import annotations

import re

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from cli.expected_schema import facts_of
from db.address import sqlalchemy_url
from db.deployment.checks import APPEND_ONLY_TABLES, LEDGER_TABLES, defects
from db.deployment.data_model import COUNTERPARTS
from db.deployment.role_limits import APP_SETTINGS
from db.migrate import migrate
from local import ROOT
from local.embedded import EmbeddedServers
from tests.support.servers import DEBIAN_POSTGRES_BIN, server_folder

#: The tests' server runs without durability, to be fast. A separate test covers that finding.
SETTING = "setting "
CREDIT = "wallet_credit(text,text,bigint,text,text,text,text,timestamp with time zone)"


@pytest.fixture(scope="module")
def expected(shared_urls):
    return facts_of(shared_urls.owner_url)


@pytest.fixture
def found_after(shared_urls, expected):
    """Make the changes, return the findings and roll everything back."""
    engine = create_engine(sqlalchemy_url(shared_urls.owner_url))

    def findings(*changes: str) -> list[str]:
        with engine.connect() as connection:
            for change in changes:
                connection.exec_driver_sql(change, execution_options={"no_parameters": True})
            found = [str(one) for one in defects(Session(bind=connection), expected)]
            connection.rollback()
        return [one for one in found if not one.startswith(SETTING)]

    yield findings
    engine.dispose()


def test_migrated_database_has_no_defects_for_owner_and_serving_login(
    found_after, shared, expected
):
    assert found_after() == []
    found = shared.run(lambda session: [str(one) for one in defects(session, expected)])
    assert [one for one in found if not one.startswith(SETTING)] == []


@pytest.mark.skipif(not DEBIAN_POSTGRES_BIN.is_dir(), reason="PostgreSQL 15 is not installed")
def test_facts_are_the_same_on_the_oldest_and_the_newest_server():
    made = []
    for program in (DEBIAN_POSTGRES_BIN, None):
        with (
            server_folder() as folder,
            EmbeddedServers(folder / "state", redis=False, fast=True, postgres_bin=program) as urls,
        ):
            migrate(urls.owner_url)
            made.append(facts_of(urls.owner_url))
    assert made[0] == made[1]


def test_every_function_is_pinned_and_closed_to_the_public(expected):
    functions = {one: facts for one, facts in expected.objects.items() if one.kind == "function"}
    assert len(functions) > 20
    for one, facts in functions.items():
        assert "search_path=public, pg_temp" in facts["settings"].split("; "), one
        assert facts["owner"] == "holdfast_owner", one
    granted = {(one.subject, one.role) for one in expected.grants}
    assert not [one for one in functions if (one, "PUBLIC") in granted]


def test_every_name_of_the_founding_documents_is_compared(expected):
    names = {(one.kind, one.name.partition("(")[0]) for one in expected.objects}
    # A constraint's index counts as the constraint.
    missing = [one for one in COUNTERPARTS if (one.kind, one.here) not in names]
    assert missing == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("DROP TABLE campaigns CASCADE", "table campaigns: missing"),
        (
            "ALTER TABLE brands RENAME twilio_subaccount_sid TO sid",
            "column brands.twilio_subaccount_sid: missing",
        ),
        (
            "ALTER TABLE brands RENAME twilio_subaccount_sid TO sid",
            "column brands.sid: no migration makes it",
        ),
        (
            "ALTER TABLE wallets ALTER owed_micros SET DEFAULT 5",
            "column wallets.owed_micros: its default is 5, not 0",
        ),
        (
            "ALTER TABLE wallets ALTER owed_micros DROP NOT NULL",
            "column wallets.owed_micros: its not null is false, not true",
        ),
        ("DROP FUNCTION cleanup_expired_reservations", "function cleanup_expired_reservations("),
        ("DROP INDEX call_holds_open", "index call_holds_open: missing"),
        (
            "DROP INDEX call_holds_open; CREATE INDEX call_holds_open ON call_holds (expires_at)",
            "index call_holds_open: its definition is ",
        ),
        (
            "ALTER TABLE wallets DROP CONSTRAINT wallet_equals_its_newest_entry",
            "constraint wallets.wallet_equals_its_newest_entry: missing",
        ),
        (
            "ALTER TABLE wallet_operations DROP CONSTRAINT wallet_operations_pkey",
            "constraint wallet_operations.wallet_operations_pkey: missing",
        ),
        (
            "ALTER TABLE wallets DROP CONSTRAINT wallets_check",
            "constraint wallets.wallets_check: missing",
        ),
        (
            "ALTER TABLE wallets DROP CONSTRAINT wallets_check,"
            " ADD CONSTRAINT wallets_check CHECK (balance_micros > -5)",
            "constraint wallets.wallets_check: its definition is CHECK ((balance_micros >",
        ),
        (
            "ALTER TABLE wallet_entries DISABLE TRIGGER wallet_entries_append_only",
            "trigger wallet_entries.wallet_entries_append_only: its state is disabled, not enabled",
        ),
        (
            "ALTER TABLE wallets ENABLE REPLICA TRIGGER wallets_are_kept",
            "trigger wallets.wallets_are_kept: its state is for replication alone",
        ),
        (
            "ALTER TABLE wallets DISABLE TRIGGER ALL",
            "constraint wallets.wallet_equals_its_newest_entry: its triggers is disabled",
        ),
        (
            "DROP TRIGGER wallets_are_kept ON wallets; CREATE TRIGGER wallets_are_kept"
            " BEFORE DELETE ON wallets FOR EACH ROW WHEN (false)"
            " EXECUTE FUNCTION ledger_is_append_only()",
            "trigger wallets.wallets_are_kept: its definition is ",
        ),
        (
            "CREATE TRIGGER one_more BEFORE INSERT ON wallet_entries FOR EACH ROW"
            " EXECUTE FUNCTION ledger_is_append_only()",
            "trigger wallet_entries.one_more: no migration makes it",
        ),
        (
            "CREATE RULE one_more AS ON INSERT TO wallet_operations DO INSTEAD NOTHING",
            "rule wallet_operations.one_more: no migration makes it",
        ),
        (
            "ALTER TABLE wallets ADD CONSTRAINT odd CHECK (entry_no >= 0) NOT VALID",
            "constraint wallets.odd: is not valid",
        ),
        ("ALTER TABLE inbox SET UNLOGGED", "table inbox: its persistence is u, not p"),
        ("ALTER TABLE wallets OWNER TO holdfast_app", "table wallets: its owner is holdfast_app"),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'call_holds_open'::regclass",
            "index call_holds_open: ",
        ),
        (
            "ALTER FUNCTION wallet_lock RESET search_path",
            "function wallet_lock(text): its settings is none, not search_path=public, pg_temp",
        ),
        (
            "ALTER FUNCTION wallet_credit SECURITY INVOKER",
            f"function {CREDIT}: its security is invoker, not definer",
        ),
        (
            "GRANT EXECUTE ON FUNCTION wallet_credit TO PUBLIC",
            f"function {CREDIT}: PUBLIC may EXECUTE it",
        ),
        (
            "GRANT EXECUTE ON FUNCTION wallet_credit TO pg_monitor",
            f"function {CREDIT}: pg_monitor may EXECUTE it",
        ),
        (
            "GRANT EXECUTE ON FUNCTION wallet_credit TO holdfast_readonly",
            f"function {CREDIT}: holdfast_readonly may EXECUTE it",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION wallet_credit FROM holdfast_app",
            f"function {CREDIT}: holdfast_app may not EXECUTE it",
        ),
        (
            "CREATE OR REPLACE FUNCTION wallet_is_frozen(p_org text, p_now timestamptz)"
            " RETURNS boolean LANGUAGE sql STABLE SET search_path = public, pg_temp"
            " AS 'SELECT false'",
            "function wallet_is_frozen(text,timestamp with time zone): its body is not the one of",
        ),
        (
            "CREATE FUNCTION wallet_lock(varchar) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
            "function wallet_lock(character varying): no migration makes it",
        ),
        (
            "GRANT UPDATE (balance_micros) ON wallets TO holdfast_app",
            "column wallets.balance_micros: holdfast_app may UPDATE it around the functions",
        ),
        (
            "GRANT UPDATE (balance_micros) ON wallets TO holdfast_readonly",
            "column wallets.balance_micros: holdfast_readonly may UPDATE it",
        ),
        (
            "GRANT UPDATE (balance_micros) ON wallets TO PUBLIC",
            "column wallets.balance_micros: PUBLIC may UPDATE it",
        ),
        (
            "GRANT UPDATE (why) ON operator_acts TO holdfast_app",
            "column operator_acts.why: holdfast_app may UPDATE it and not only add to it",
        ),
        (
            "GRANT UPDATE (details) ON alerts TO holdfast_app",
            "column alerts.details: holdfast_app may UPDATE it",
        ),
        (
            "CREATE VIEW money AS SELECT * FROM wallets; GRANT UPDATE ON money TO holdfast_app",
            "view money: holdfast_app may UPDATE it around the functions",
        ),
        (
            "CREATE SCHEMA aside; GRANT USAGE ON SCHEMA aside TO PUBLIC; CREATE VIEW aside.acts AS"
            " SELECT * FROM operator_acts; GRANT UPDATE (why) ON aside.acts TO PUBLIC",
            "view aside.acts: holdfast_app may UPDATE it and not only add to it",
        ),
        (
            "GRANT pg_write_all_data TO holdfast_app",
            "table wallets: holdfast_app may UPDATE it around the functions",
        ),
        ("GRANT DELETE ON jobs TO pg_monitor", "table jobs: pg_monitor may DELETE it"),
        ("REVOKE SELECT ON jobs FROM holdfast_app", "table jobs: holdfast_app may not SELECT it"),
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
def test_each_missing_or_open_object_is_found(found_after, change, finding):
    assert any(line.startswith(finding) for line in found_after(change)), found_after(change)


@pytest.mark.parametrize(
    ("value", "finding"),
    [
        ("0", "has no {}: 0 means no limit"),
        ("0ms", "has no {}: 0ms means no limit"),
        ("0 min", "has no {}: 0 min means no limit"),
        ("0.0s", "has no {}: 0.0s means no limit"),
        ("400us", "has no {}: 400us means no limit"),
        ("99", "its {} is 99; it must be 100 ms to 60 s"),
        ("61s", "its {} is 61s; it must be 100 ms to 60 s"),
        ("1d", "its {} is 1d; it must be 100 ms to 60 s"),
        ("0x10", "its {} is 0x10, which is no duration"),
        ("100", None),
        ("1 min", None),
        ("1.5s", None),
    ],
)
def test_ineffective_time_limit_is_found(found_after, value, finding):
    found = found_after(f"ALTER ROLE holdfast_app SET statement_timeout = '{value}'")
    expected = (
        [] if finding is None else [f"role holdfast_app: {finding.format('statement_timeout')}"]
    )
    assert found == expected


@pytest.mark.parametrize("name", APP_SETTINGS)
def test_time_limit_overridden_by_the_database_is_found(found_after, name):
    # A role's setting for one database overrides the role's general setting.
    change = (
        "DO $do$ BEGIN EXECUTE format('ALTER ROLE holdfast_app IN DATABASE %I"
        f" SET {name} = ''0ms''', current_database()); END $do$"
    )
    assert found_after(change) == [f"role holdfast_app: has no {name}: 0ms means no limit"]


@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER"])
def test_writable_ledger_table_is_found(found_after, privilege):
    found = found_after(*(f"GRANT {privilege} ON {one} TO holdfast_app" for one in LEDGER_TABLES))
    assert sorted(found) == sorted(
        f"table {one}: holdfast_app may {privilege} it around the functions"
        for one in LEDGER_TABLES
    )


@pytest.mark.parametrize("privilege", ["UPDATE", "DELETE", "TRUNCATE", "TRIGGER"])
def test_writable_record_of_operator_actions_is_found(found_after, privilege):
    tables = APPEND_ONLY_TABLES
    found = found_after(*(f"GRANT {privilege} ON {one} TO holdfast_app" for one in tables))
    assert sorted(found) == sorted(
        f"table {one}: holdfast_app may {privilege} it and not only add to it" for one in tables
    )


@pytest.mark.parametrize("kind", ["constraint", "trigger"])
def test_each_missing_guard_of_a_table_is_found(found_after, expected, kind):
    guards = [one for one in expected.objects if one.kind == kind]
    assert len(guards) > 10
    drop = {
        "constraint": 'ALTER TABLE {} DROP CONSTRAINT IF EXISTS "{}" CASCADE',
        "trigger": "DROP TRIGGER {1} ON {0}",
    }[kind]
    changes = [drop.format(one.table, one.name.removeprefix(f"{one.table}.")) for one in guards]
    assert sorted(found_after(*changes)) == sorted(f"{kind} {one.name}: missing" for one in guards)


def test_each_changed_function_is_found(found_after, expected):
    functions = [one for one in expected.objects if one.kind == "function"]
    changes = [
        f"UPDATE pg_proc SET prosrc = prosrc || ' ' WHERE oid = '{one.name}'::regprocedure"
        for one in functions
    ]
    assert found_after(*changes) == [
        f"function {one.name}: its body is not the one of the migrations"
        for one in sorted(functions)
    ]


def test_reading_may_be_granted_to_others_and_an_index_may_be_added(found_after):
    assert (
        found_after(
            "GRANT SELECT ON wallet_entries TO pg_monitor",
            "CREATE INDEX more ON jobs (worker)",
            "CREATE VIEW money AS SELECT * FROM wallets; GRANT SELECT ON money TO holdfast_app",
        )
        == []
    )


def test_missing_role_is_found_without_an_error(found_after):
    assert found_after("ALTER ROLE holdfast_readonly RENAME TO somebody") == [
        "role holdfast_readonly: missing"
    ]


def test_server_that_may_lose_a_commit_is_found(shared, expected):
    def findings(session: Session) -> list[str]:
        session.execute(text("SET LOCAL synchronous_commit = off"))
        return [str(one) for one in defects(session, expected)]

    assert "setting synchronous_commit: is off, not on" in shared.run(findings)


def test_session_that_disables_triggers_is_found(shared_urls, expected):
    engine = create_engine(sqlalchemy_url(shared_urls.owner_url))
    with engine.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        found = [str(one) for one in defects(Session(bind=connection), expected)]
    engine.dispose()
    assert "setting session_replication_role: is replica, not origin" in found


def test_empty_database_has_findings_and_no_error(empty_url, expected):
    engine = create_engine(sqlalchemy_url(empty_url))
    with engine.connect() as connection:
        found = [str(one) for one in defects(Session(bind=connection), expected)]
    engine.dispose()
    assert "table wallets: missing" in found


def test_data_model_document_has_the_same_counterparts():
    rows = re.findall(
        r"^\| `([^`]+)` \| (\w+) \| `([^`]+)` \|",
        (ROOT / "docs" / "data-model.md").read_text(),
        re.MULTILINE,
    )
    assert rows == [tuple(one) for one in COUNTERPARTS]
