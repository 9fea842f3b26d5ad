"""Calls: their rows, rates, terms and entry points, and holds extended in bulk.

Why: a call that is not stored cannot be metered, ended or settled. The revision only adds, so that
processes of the version before can go on.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_as_owner("0002_calls.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION extend_call_credits_many, put_off_call_hold")
    op.execute("DROP TABLE call_timeline, calls, call_doors, call_terms, call_rates")
