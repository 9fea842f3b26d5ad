"""The highest instant seen of the database's clock, so that a step of it is noticed.

Why: with a clock that steps back, calls were not ended in time and waits became longer. Only adds a
table, so that the version before goes on beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0012"
down_revision = "0011"

_SQL = Path(__file__).parent.parent / "sql" / "0012_clock.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TABLE database_clock")
