"""Calls: their rows, rates, terms and doors, and holds extended many at once.

Why: a call has to be known to be metered, ended and settled. Only adds, so that the version before
goes on beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0002"
down_revision = "0001"

_SQL = Path(__file__).parent.parent / "sql" / "0002_calls.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    # The driver itself: it sends many statements at once and leaves every % alone.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION extend_call_credits_many, put_off_call_hold")
    op.execute("DROP TABLE call_timeline, calls, call_doors, call_terms, call_rates")
