"""A bound on what is waived of a call that the platform's own fault ended.

Why: a call of any length was free. Only adds a column with a default, so that the version before
goes on beside it.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_as_owner("0006_fault_waiver.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("ALTER TABLE call_terms DROP COLUMN fault_waived_minutes")
