"""The highest instant seen of the database's clock, so that a step of it is noticed.

Why: with a clock that steps back, calls were not ended in time and waits became longer. Only adds a
table, so that the version before goes on beside it.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_as_owner("0012_clock.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TABLE database_clock")
