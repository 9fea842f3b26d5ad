"""Calls: their rows, rates, terms and doors, and holds extended many at once.

Why: a call has to be known to be metered, ended and settled. Only adds, so that the version before
goes on beside it.
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
