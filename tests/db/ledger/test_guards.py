"""The ledger's guards: what PostgreSQL refuses, for which role, by which guard.

Only the ledger's functions can change a wallet.
"""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import errors

from db.address import driver_url
from domain.wallet import operations as wallets
from tests.support.world import make_organization

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def state(owner, org):
    queries = (
        "SELECT * FROM wallets WHERE organization_id = %s",
        "SELECT * FROM wallet_entries WHERE organization_id = %s ORDER BY entry_no",
        "SELECT * FROM wallet_operations WHERE organization_id = %s ORDER BY key",
        "SELECT * FROM wallet_freezes WHERE organization_id = %s ORDER BY id",
        "SELECT * FROM payment_references WHERE organization_id = %s",
        "SELECT * FROM payment_refunds WHERE organization_id = %s",
        "SELECT * FROM payment_disputes WHERE organization_id = %s",
    )
    return [owner.execute(query, (org,)).fetchall() for query in queries]


@pytest.fixture
def app(shared_urls):
    with psycopg.connect(driver_url(shared_urls.app_url), autocommit=True) as connection:
        yield connection


AS_APP = {
    "update a balance": "UPDATE wallets SET balance_micros = 1 WHERE organization_id = %(org)s",
    "update a hold": "UPDATE wallets SET held_micros = 0 WHERE organization_id = %(org)s",
    "raise a debt limit": "UPDATE wallets SET debt_limit_micros = 9",
    "unwatch a wallet": "UPDATE wallets SET notice_below_micros = NULL",
    "arm without a top-up's cause": "SELECT ledger_rearm(w, now()) FROM wallets w",
    "forget an alert": "DELETE FROM alerts",
    "forget a decision": "DELETE FROM top_up_decisions",
    "forget what was agreed": "DELETE FROM top_up_settings",
    "delete a wallet": "DELETE FROM wallets WHERE organization_id = %(org)s",
    "update an entry": "UPDATE wallet_entries SET note = 'x' WHERE organization_id = %(org)s",
    "delete an entry": "DELETE FROM wallet_entries WHERE organization_id = %(org)s",
    "truncate entries": "TRUNCATE wallet_entries CASCADE",
    "truncate wallets": "TRUNCATE wallets CASCADE",
    "insert an entry": "INSERT INTO wallet_entries SELECT * FROM wallet_entries LIMIT 1",
    "insert a wallet": "INSERT INTO wallets SELECT * FROM wallets LIMIT 1",
    "insert an operation": (
        "INSERT INTO wallet_operations VALUES (%(org)s, 'k', 'debit', 'debit', 1, 'USD', 1, 1, 0,"
        " 0, now())"
    ),
    "delete an operation": "DELETE FROM wallet_operations WHERE organization_id = %(org)s",
    "insert a payment": (
        "INSERT INTO payment_references VALUES ('paypal', 'capture', 'P', %(org)s, 1, 0, 0,"
        " now(), now())"
    ),
    "update a payment": "UPDATE payment_references SET moved_micros = 0",
    "insert a refund": (
        "INSERT INTO payment_refunds VALUES ('paypal', 'R', 'capture', 'P', %(org)s, 1, NULL,"
        " 'failed', NULL, NULL, now(), now())"
    ),
    "update a refund": "UPDATE payment_refunds SET state = 'failed'",
    "insert a dispute": (
        "INSERT INTO payment_disputes VALUES ('paypal', 'D', 'capture', 'P', %(org)s, 1, 'won',"
        " NULL, NULL, now(), now())"
    ),
    "update a dispute": "UPDATE payment_disputes SET state = 'won'",
    "delete a dispute": "DELETE FROM payment_disputes",
    "move for a payment": "SELECT payment_move('paypal', 'capture', 'P', 'refund', 'x', now())",
    "begin with a payment": "SELECT payment_begin(%(org)s, 'paypal', 'capture', 'P', 'USD', now())",
    "insert a freeze": (
        "INSERT INTO wallet_freezes (organization_id, reason, placed_by, placed_why, placed_at)"
        " VALUES (%(org)s, 'manual', 'x', 'x', now())"
    ),
    "lift a freeze": "UPDATE wallet_freezes SET lifted_at = now(), lifted_by = 'x'",
    "delete a freeze": "DELETE FROM wallet_freezes",
    "rebuild": "SELECT wallet_rebuild(%(org)s, 'x', 'x', now())",
    "append": (
        "SELECT ledger_append(w, 'credit', 'credit', 1, 0, '', 'k', '', now()) FROM wallets w"
    ),
    "store": "SELECT ledger_store(w, now()) FROM wallets w",
    "remember": "SELECT wallet_remember(w, 'k', 'debit', 'debit', 1, now()) FROM wallets w",
    "pay what is owed": "SELECT ledger_pay_owed(w, 'k', now()) FROM wallets w",
    "take back": "SELECT ledger_take_back(w, 1, 'refund', 'c', 'k', now()) FROM wallets w",
    "place": "SELECT ledger_place_freeze(w, 'manual', '', 'x', 'x', 'k', now()) FROM wallets w",
    "lock without the door": "SELECT FROM wallets FOR UPDATE",
    "choose an alert's number": (
        "INSERT INTO alerts OVERRIDING SYSTEM VALUE"
        " VALUES (1, 'x', NULL, '1', 'info', '{}', now(), NULL)"
    ),
    "change what an alert says": "UPDATE alerts SET subject = 'x'",
    "move a threshold": "UPDATE wallet_thresholds SET organization_id = %(org)s",
    "change a threshold": "UPDATE wallet_thresholds SET threshold_micros = 1",
    "begin with crossings": (
        "INSERT INTO top_up_settings (organization_id, enabled, provider, payment_method,"
        " below_micros, amount_micros, day_cap_micros, day_cap_count, crossings, set_by, set_why,"
        " set_at) VALUES (%(org)s, true, 'paypal', 'pm', 1, 1, 1, 1, 5, 'x', 'x', now())"
    ),
    "change the crossings": "UPDATE top_up_settings SET crossings = 0",
    "move the terms": "UPDATE top_up_settings SET organization_id = %(org)s",
    "change a decision's key": "UPDATE top_up_decisions SET idempotency_key = 'x'",
    "disable the trigger": "ALTER TABLE wallet_entries DISABLE TRIGGER ALL",
    "drop a table": "DROP TABLE wallet_entries CASCADE",
    "replace a function": (
        "CREATE OR REPLACE FUNCTION wallet_is_frozen(p_org text, p_now timestamptz) RETURNS boolean"
        " LANGUAGE sql AS 'SELECT false'"
    ),
    "make a table": "CREATE TABLE public.wallets_too (id int)",
    "become the owner": "SET ROLE holdfast_owner",
    "turn triggers off": "SET session_replication_role = replica",
}


@pytest.mark.parametrize("name", AS_APP)
def test_serving_role_cannot_write_the_ledger(app, owner, org, name):
    before = state(owner, org)
    with pytest.raises(errors.InsufficientPrivilege):
        app.execute(AS_APP[name], {"org": org})
    assert state(owner, org) == before


def test_serving_role_may_execute_only_the_listed_functions(app):
    rows = app.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND has_function_privilege(oid, 'EXECUTE')"
    ).fetchall()
    assert sorted(name for (name,) in rows) == [
        "call_origin",
        "check_balance_and_deduct_asset_cost",
        "cleanup_expired_reservations",
        "commit_reserved_credits",
        "dispute_reported",
        "extend_call_credits",
        "extend_call_credits_many",
        "inbox_receive",
        "payment_taken",
        "pull_back_call_holds",
        "put_off_call_hold",
        "release_call_credits",
        "reserve_call_credits",
        "settle_dispute",
        "settle_payment",
        "settle_refund",
        "shift_call_holds",
        "wallet_correct",
        "wallet_credit",
        "wallet_debit",
        "wallet_debit_many",
        "wallet_freeze",
        "wallet_is_frozen",
        "wallet_lock",
        "wallet_open",
        "wallet_override",
        "wallet_set_debt_limit",
        "wallet_unfreeze",
    ]


def test_every_security_definer_function_has_a_fixed_search_path(owner):
    rows = owner.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND NOT coalesce(proconfig @> ARRAY['search_path=public, pg_temp'], false)"
    ).fetchall()
    assert rows == []


def test_temporary_table_does_not_replace_the_ledgers(app, org):
    # Given a temporary table that is named like the wallets and shows a large balance
    app.execute("CREATE TEMP TABLE wallets AS SELECT * FROM public.wallets")
    app.execute("UPDATE pg_temp.wallets SET balance_micros = 1000")
    app.execute("SET search_path = pg_temp, public")
    # When a debit is requested that only the temporary table could pay
    outcome = app.execute(
        "SELECT (wallet_debit(%s, 'k', 500, 'USD', 'debit', 'messages', '', now())).outcome", (org,)
    ).fetchone()
    assert outcome == ("INSUFFICIENT_FUNDS",)


def test_readonly_role_reads_and_cannot_write_anything(owner, org):
    with owner.transaction(force_rollback=True):
        owner.execute("SET LOCAL ROLE holdfast_readonly")
        assert owner.execute("SELECT count(*) FROM wallets").fetchone()[0] > 0
        for table in ("wallets", "wallet_entries", "jobs", "inbox", "organizations"):
            for right in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
                query = "SELECT has_table_privilege(current_user, %s, %s)"
                assert owner.execute(query, (table, right)).fetchone() == (False,)


@pytest.mark.parametrize("kind", ["topup", "dispute", "refund", "call", "", None])
def test_debit_of_a_reserved_kind_is_refused(app, owner, org, kind):
    before = state(owner, org)
    outcome = app.execute(
        "SELECT (wallet_debit(%s, 'k', 1, 'USD', %s, 'messages', '', now())).outcome", (org, kind)
    ).fetchone()
    assert outcome == ("INVALID_KIND",)
    assert state(owner, org) == before


ODD = {
    "credit": ("wallet_credit(%(org)s, %(odd)s, 1, 'USD', 'credit', 'c', '', now())", "KEY"),
    "debit": ("wallet_debit(%(org)s, %(odd)s, 1, 'USD', 'debit', 'c', '', now())", "KEY"),
    "correct": ("wallet_correct(%(org)s, %(odd)s, 'credit', 1, 'USD', 'o', 'w', now())", "KEY"),
    "direction": (
        "wallet_correct(%(org)s, 'k', %(odd)s, 1, 'USD', 'o', 'w', now())",
        "CORRECTION",
    ),
    "operator": (
        "wallet_correct(%(org)s, 'k', 'credit', 1, 'USD', %(odd)s, 'w', now())",
        "CORRECTION",
    ),
    "why": ("wallet_correct(%(org)s, 'k', 'credit', 1, 'USD', 'o', %(odd)s, now())", "CORRECTION"),
}


@pytest.mark.parametrize("odd", [None, "", "x" * 1_200], ids=["missing", "empty", "too long"])
@pytest.mark.parametrize("name", ODD)
def test_missing_or_out_of_bounds_argument_is_refused_with_a_code(app, owner, org, name, odd):
    call, code = ODD[name]
    before = state(owner, org)
    outcome = app.execute(f"SELECT ({call}).outcome", {"org": org, "odd": odd}).fetchone()
    assert outcome == (f"INVALID_{code}",)
    assert state(owner, org) == before


# These tests run as superuser: the structure itself refuses.


def test_debit_fails_when_its_low_balance_alert_cannot_be_written(owner, org):
    with owner.transaction(force_rollback=True):
        # Given a threshold, and an alert that already has the next number
        owner.execute(
            "INSERT INTO wallet_thresholds (organization_id, threshold_micros, set_by, set_why,"
            " set_at) SELECT %s, balance_micros, 'x', 'x', now() FROM wallets"
            " WHERE organization_id = %s",
            (org, org),
        )
        owner.execute(
            "INSERT INTO alerts OVERRIDING SYSTEM VALUE SELECT nextval('alerts_id_seq') + 1, 'x',"
            " NULL, '1', 'info', '{}', now(), NULL"
        )
        # When available money falls below it, Then the debit fails instead of losing the alert
        with pytest.raises(errors.UniqueViolation):
            owner.execute(
                "SELECT wallet_debit(%s, 'd', 1, 'USD', 'debit', 'messages', '', now())", (org,)
            )


def test_number_of_crossings_cannot_overflow(owner, org):
    with pytest.raises(errors.CheckViolation):
        owner.execute(
            "INSERT INTO top_up_settings (organization_id, enabled, provider, payment_method,"
            " below_micros, amount_micros, day_cap_micros, day_cap_count, crossings, set_by,"
            " set_why, set_at) VALUES (%s, true, 'paypal', 'pm', 1, 1, 1, 1, 1000000000000000,"
            " 'x', 'x', now())",
            (org,),
        )


def test_even_a_superusers_raw_balance_change_is_refused(owner, org):
    for column in ("balance_micros", "owed_micros", "entry_no"):
        with pytest.raises(errors.ForeignKeyViolation, match="wallet_equals_its_newest_entry"):
            owner.execute(
                f"UPDATE wallets SET {column} = {column} + 1 WHERE organization_id = %s", (org,)
            )


def test_superuser_cannot_set_a_wallet_back_to_an_older_entry(owner, org):
    # Given a wallet with two entries
    before = state(owner, org)

    # When its row is made equal to the older entry, as a store without the lock would do
    with pytest.raises(errors.CheckViolation, match="has a newer entry"):
        owner.execute(
            "UPDATE wallets w SET entry_no = e.entry_no, balance_micros = e.balance_after_micros,"
            " owed_micros = e.owed_after_micros FROM wallet_entries e WHERE e.entry_no = 0"
            " AND e.organization_id = w.organization_id AND w.organization_id = %s",
            (org,),
        )

    # Then nothing has changed
    assert state(owner, org) == before


def test_write_based_on_an_outdated_read_is_refused(owner, shared_urls, org):
    # Given a connection that read the wallet without its lock
    read = owner.execute(
        "SELECT entry_no, balance_micros, owed_micros FROM wallets WHERE organization_id = %s",
        (org,),
    ).fetchone()
    with psycopg.connect(driver_url(shared_urls.app_url), autocommit=True) as other:
        other.execute(
            "SELECT wallet_debit(%s, 'd', 1, 'USD', 'debit', 'messages', '', now())", (org,)
        )

    # When it stores what it read, plus a hold, Then the store is refused
    with pytest.raises(errors.CheckViolation, match="has a newer entry"):
        owner.execute(
            "UPDATE wallets SET entry_no = %s, balance_micros = %s, owed_micros = %s,"
            " held_micros = 7 WHERE organization_id = %s",
            (*read, org),
        )


@pytest.mark.parametrize("table", ["wallet_entries", "wallet_operations"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET created_at = now()", "DELETE FROM {}"])
def test_even_a_superuser_may_not_change_written_rows(owner, org, table, statement):
    before = state(owner, org)
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        owner.execute(statement.format(table) + " WHERE organization_id = %s", (org,))
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        owner.execute(f"TRUNCATE {table} CASCADE")
    assert state(owner, org) == before


@pytest.mark.parametrize("statement", ["DELETE FROM wallets", "TRUNCATE wallets CASCADE"])
def test_even_a_superuser_may_not_remove_a_wallet(owner, org, statement):
    # The wallet's foreign key ties entries and operations to an organization.
    before = state(owner, org)
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        owner.execute(statement)
    assert state(owner, org) == before


def test_newest_entry_cannot_be_lost_with_the_trigger_disabled(owner, org):
    with owner.transaction(force_rollback=True):
        owner.execute("ALTER TABLE wallet_entries DISABLE TRIGGER wallet_entries_append_only")
        with pytest.raises(errors.ForeignKeyViolation):
            owner.execute(
                "DELETE FROM wallet_entries e USING wallets w WHERE e.organization_id = %s"
                " AND w.organization_id = e.organization_id AND w.entry_no = e.entry_no",
                (org,),
            )


def append(owner, org, amount, *, direction="debit", debt_limit=None):
    """Write an entry and the wallet as the functions do, without their checks."""
    with owner.transaction():
        if debt_limit is not None:
            owner.execute(
                "UPDATE wallets SET debt_limit_micros = %s WHERE organization_id = %s",
                (debt_limit, org),
            )
        owner.execute(
            "SELECT ledger_store(ledger_append(w, 'debit', %s, %s, owed_micros, 'c', 'k', '',"
            " now()), now()) FROM wallets w WHERE organization_id = %s",
            (direction, amount, org),
        )


def test_negative_balance_is_refused_beyond_the_approved_debt_limit(owner, org):
    with pytest.raises(errors.CheckViolation):
        append(owner, org, 101)
    with pytest.raises(errors.CheckViolation):
        append(owner, org, 131, debt_limit=30)
    append(owner, org, 130, debt_limit=30)
    assert state(owner, org)[0][0][2] == -30


def test_held_money_cannot_be_debited(owner, org):
    owner.execute("UPDATE wallets SET held_micros = 60 WHERE organization_id = %s", (org,))
    with pytest.raises(errors.CheckViolation):
        append(owner, org, 41)
    append(owner, org, 40)


def test_balance_is_bounded_within_bigint(owner, org):
    with pytest.raises(errors.CheckViolation):
        append(owner, org, 10**15 + 1, direction="credit")


def test_entry_with_a_wrong_sum_is_refused(owner, org):
    insert = (
        "INSERT INTO wallet_entries SELECT organization_id, entry_no + {no}, kind, {direction},"
        " amount_micros, balance_before_micros, balance_after_micros + {more}, owed_after_micros,"
        " counter_account, operation_key, note, created_at, previous_hash, hash"
        " FROM wallet_entries WHERE organization_id = %s AND entry_no = 1"
    )
    for values, error in (
        ({"no": 9, "direction": "direction", "more": 1}, errors.CheckViolation),
        ({"no": 9, "direction": "'note'", "more": 0}, errors.CheckViolation),
        ({"no": -2, "direction": "direction", "more": 0}, errors.CheckViolation),
    ):
        with pytest.raises(error):
            owner.execute(insert.format(**values), (org,))


def test_two_entries_cannot_share_a_number(owner, org):
    with pytest.raises(errors.UniqueViolation, match="wallet_entries_pkey"):
        owner.execute(
            "INSERT INTO wallet_entries SELECT organization_id, entry_no, kind, direction,"
            " amount_micros + 1, balance_before_micros, balance_after_micros + 1,"
            " owed_after_micros, counter_account, operation_key, note, created_at, previous_hash,"
            " hash FROM wallet_entries WHERE organization_id = %s AND entry_no = 1",
            (org,),
        )


def test_organization_has_one_wallet_in_one_currency(owner, shared, org):
    with pytest.raises(errors.UniqueViolation):
        owner.execute(
            "INSERT INTO wallets SELECT organization_id, 'EUR', balance_micros, held_micros,"
            " owed_micros, debt_limit_micros, entry_no, head_hash, created_at, updated_at"
            " FROM wallets WHERE organization_id = %s",
            (org,),
        )
    outcome = shared.run(lambda session: wallets.open_wallet(session, org, "EUR", NOW))
    assert outcome.outcome == "CURRENCY_MISMATCH"


def test_freeze_with_one_reason_and_cause_is_active_once(owner, org):
    insert = (
        "INSERT INTO wallet_freezes (organization_id, reason, cause, placed_by, placed_why,"
        " placed_at) VALUES (%s, 'manual', %s, 'x', 'x', now())"
    )
    owner.execute(insert, (org, "one"))
    owner.execute(insert, (org, "two"))
    with pytest.raises(errors.UniqueViolation):
        owner.execute(insert, (org, "one"))


def test_one_payment_belongs_to_one_organization(owner, shared, org):
    insert = (
        "INSERT INTO payment_references VALUES ('paypal', 'capture', 'ONE', %s, 0, 0, 0,"
        " now(), now())"
    )
    owner.execute(insert, (org,))
    with pytest.raises(errors.UniqueViolation):
        owner.execute(insert, (make_organization(shared),))


def test_two_operations_cannot_share_a_key(owner, org):
    insert = (
        "INSERT INTO wallet_operations VALUES (%s, 'same', 'debit', 'debit', 1, 'USD', 1, 1, 0, 0,"
        " now())"
    )
    owner.execute(insert, (org,))
    with pytest.raises(errors.UniqueViolation):
        owner.execute(insert, (org,))
