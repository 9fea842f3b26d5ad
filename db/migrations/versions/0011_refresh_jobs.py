"""One waiting refresh job an object.

Why: while a provider was away, each look at one of its objects staged another job. Only adds, so
that the version before goes on beside it; its jobs have no key.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_as_owner("0011_refresh_jobs.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("ALTER TABLE jobs DROP COLUMN object_key")
