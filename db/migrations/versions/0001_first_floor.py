"""Organizations, the ledger, the inbox and the jobs.

Why: everything that Holdfast remembers starts here. The SQL stands in files of its own beside this
one, because a person has to be able to read the ledger in one sitting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0001"
down_revision = None

_SQL = Path(__file__).parent.parent / "sql"


def _run(name: str) -> None:
    # The driver itself: it sends many statements at once and leaves every % alone.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute((_SQL / name).read_text())


def upgrade() -> None:
    _run("0001_roles.sql")
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    _run("0001_tables.sql")
    _run("0001_ledger.sql")
    _run("0001_payments.sql")
    _run("0001_newest.sql")
    _run("0001_holds.sql")
    _run("0001_batch.sql")
    _run("0001_thresholds.sql")
    _run("0001_inbox.sql")
    _run("0001_upkeep.sql")
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
