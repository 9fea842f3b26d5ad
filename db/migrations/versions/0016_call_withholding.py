"""Withholding of calls that a charged reservation may be: one call for each such reservation.

Why: one charged reservation that was never paired withheld every call that overlapped it, and all
such reservations of half a day were read under the lock of the wallet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0016"
down_revision = "0015"

_SQL = Path(__file__).parent.parent / "sql" / "0016_call_withholding.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP INDEX calls_charged_unpaired, calls_withheld_for")
    op.execute("ALTER TABLE calls DROP COLUMN withheld_for")
    op.execute(
        "CREATE INDEX calls_unpaired ON calls (organization_id, created_at)"
        " WHERE origin = 'reserved' AND provider_call_id IS NULL"
    )
