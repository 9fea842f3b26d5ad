"""An index of due safety jobs.

Why: with 20,000 open safety jobs, each take from PostgreSQL read all of them. Only adds, so that
the version before goes on beside it. The table is read once while its writers wait.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0014"
down_revision = "0013"

_SQL = Path(__file__).parent.parent / "sql" / "0014_safety_jobs.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP INDEX jobs_safety_due")
