"""Processes: one row for each ingress, worker and relay that runs.

Why: a stopped worker or relay must be noticed by those that still run. Only adds a table, so that
the version before goes on beside it.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_as_owner("0003_processes.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TABLE processes")
