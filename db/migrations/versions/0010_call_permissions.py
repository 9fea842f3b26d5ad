"""Permissions for campaigns at the provider to dial, each with a hold of its own.

Why: a campaign dials many contacts at once, and the sum of them must fit the funds. Only adds, so
that the version before goes on beside it.
"""

from __future__ import annotations

from alembic import op

from db.migrations.sql_files import run_as_owner

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_as_owner("0010_call_permissions.sql")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("ALTER TABLE calls DROP COLUMN campaign_id, DROP COLUMN contact_id")
