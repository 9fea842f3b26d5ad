"""The origin of calls that workers of the version before 0008 write, derived by the database.

Why: rows without an origin were neither paired nor found foreign, so that such workers had to be
drained before an upgrade.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0013"
down_revision = "0012"

_SQL = Path(__file__).parent.parent / "sql" / "0013_call_origin.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER calls_derive_origin ON calls")
    op.execute("DROP FUNCTION call_derive_origin, call_origin")
