"""The end of holds moves back with a database's clock that steps back.

Why: a permission to dial, or a reservation that nobody dialled, kept its money for as long as the
step. Only adds a function, so that the version before goes on beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0015"
down_revision = "0014"

_SQL = Path(__file__).parent.parent / "sql" / "0015_hold_shift.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION shift_call_holds")
