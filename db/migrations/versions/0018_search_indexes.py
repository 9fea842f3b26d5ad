"""Indexes of discarded jobs, and of alerts by kind.

Why: a search for either read the whole table. Only adds, so that the version before goes on beside
it. Each table is read once while its writers wait.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    run_as_owner("0018_search_indexes.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP INDEX alerts_kind, jobs_discarded")
