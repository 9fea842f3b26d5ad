"""Permissions for campaigns at the provider to dial, each with a hold of its own.

Why: a campaign dials many contacts at once, and the sum of them must fit the funds. Only adds, so
that the version before goes on beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0010"
down_revision = "0009"

_SQL = Path(__file__).parent.parent / "sql" / "0010_call_permissions.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    # The driver itself: it sends many statements at once and leaves every % alone.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("ALTER TABLE calls DROP COLUMN campaign_id, DROP COLUMN contact_id")
