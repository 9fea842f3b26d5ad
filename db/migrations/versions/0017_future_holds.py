"""Open holds that were made in the future are found and pulled back.

Why: a transaction that read the clock before it stepped back, and committed after the step was
settled, left a hold whose money was kept for as long as the step. Only functions change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0017"
down_revision = "0016"

_FOLDER = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    _run("0017_future_holds.sql")
    op.execute("RESET ROLE")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION pull_back_call_holds")
    op.execute("DROP FUNCTION shift_call_holds")
    op.execute("SET LOCAL ROLE holdfast_owner")
    _run("0015_hold_shift.sql")
    op.execute("RESET ROLE")


def _run(name: str) -> None:
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute((_FOLDER / name).read_text())
