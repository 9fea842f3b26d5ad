"""What was found at Twilio, beside what is desired: drift is noticed, repaired and told.

Why: a change made at Twilio itself was never noticed. Only adds columns, so that the version before
goes on beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0004"
down_revision = "0003"

_SQL = Path(__file__).parent.parent / "sql" / "0004_subaccount_checks.sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute(_SQL.read_text())
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        "ALTER TABLE brands DROP COLUMN twilio_found, DROP COLUMN twilio_found_at,"
        " DROP COLUMN twilio_drift, DROP COLUMN twilio_checked_at"
    )
