"""Derive the origin of calls that workers of a version before 0008 write.

Why: rows without an origin were neither paired nor recognized as foreign. Such workers had to be
stopped before an upgrade.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_as_owner("0013_call_origin.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER calls_derive_origin ON calls")
    op.execute("DROP FUNCTION call_derive_origin, call_origin")
