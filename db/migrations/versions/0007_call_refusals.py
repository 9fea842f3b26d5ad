"""Refused calls with their reason, and one code for each cause of an end.

Why: a refused call looked like one that had not asked, and one fact had two codes. The version
before can go on beside this one: the old codes stay allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0007"
down_revision = "0006"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0007_call_refusals.sql")


def downgrade() -> None:
    _run("0007_call_refusals_down.sql")


def _run(name: str) -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    # The driver itself: it sends many statements at once and leaves every % alone.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute((_SQL / name).read_text())
    op.execute("RESET ROLE")
