"""The latest instant seen of the database's clock, which shows a step back.

Why: after a step back, calls were not ended in time and waits became longer. The revision only adds
a table, so that processes of the version before can go on.
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
