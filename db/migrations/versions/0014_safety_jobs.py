"""An index of due safety jobs.

Why: workers take due safety jobs from PostgreSQL while Redis is silent. With 20,000 open safety
jobs, each of their queries read all of them. The migration only adds an index, so processes of the
previous version keep working. PostgreSQL reads the table once, and writers wait until then.
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
