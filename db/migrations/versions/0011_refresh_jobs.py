"""One waiting refresh job an object.

Why: while a provider was away, each look at one of its objects staged another job. Only adds, so
that the version before goes on beside it; its jobs have no key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0011"
down_revision = "0010"

_SQL = Path(__file__).parent.parent / "sql" / "0011_refresh_jobs.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    # The driver itself: it sends many statements at once and leaves every % alone.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("ALTER TABLE jobs DROP COLUMN object_key")
