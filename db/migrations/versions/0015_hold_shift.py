"""Holds follow the database's clock when it steps back.

Why: after a step back, the money of a permission or reservation that was never dialled stayed held
longer, by the length of the step. Only adds functions, so that the version before goes on beside
it.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_as_owner("0015_hold_shift.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION pull_back_call_holds, shift_call_holds")
