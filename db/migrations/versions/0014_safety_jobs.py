"""An index of due safety jobs.

Why: with 20,000 open safety jobs, each take from PostgreSQL read all of them. Only adds, so that
the version before goes on beside it. The table is read once while its writers wait.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_as_owner("0014_safety_jobs.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP INDEX jobs_safety_due")
