"""Organizations, the ledger, the inbox and the jobs.

Why: all that Holdfast stores begins here. The SQL is in files beside this one, so that a person can
read the ledger in one sitting.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_file("0001_roles.sql")
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    run_file("0001_tables.sql")
    run_file("0001_ledger.sql")
    run_file("0001_payments.sql")
    run_file("0001_newest.sql")
    run_file("0001_holds.sql")
    run_file("0001_batch.sql")
    run_file("0001_thresholds.sql")
    run_file("0001_inbox.sql")
    run_file("0001_upkeep.sql")
    op.execute("RESET ROLE")


def downgrade() -> None:
    # The roles stay: they belong to the whole server, where other databases may use them.
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        "DROP TABLE operator_acts, schedules, top_up_decisions, top_up_settings,"
        " wallet_thresholds, alerts, call_holds, job_attempts, jobs, inbox, refused_deliveries,"
        " refusal_counts, campaigns, brands, subscriptions, payment_disputes, payment_refunds,"
        " payment_references, wallet_freezes, wallet_operations, wallets, wallet_entries,"
        " organizations CASCADE"
    )
    op.execute("DROP TYPE wallet_outcome CASCADE")
    for function in (
        "ledger_is_append_only",
        "ledger_hash",
        "wallet_goes_back",
        "wallet_is_frozen",
        "wallet_freeze",
        "wallet_unfreeze",
        "wallet_override",
        "wallet_debit_many",
        "payment_taken",
        "dispute_reported",
        "wallet_fell",
        "wallet_watch",
        "ledger_new_id",
        "inbox_receive",
    ):
        op.execute(f"DROP FUNCTION {function}")
