"""Pairing of reservations with the provider's calls: tokens, merged rows, and how a call began.

Why: one outgoing call could be held and charged twice, and a browser could take over a reserved id.
Only adds, so that the version before can go on beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0008"
down_revision = "0007"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0008_call_pairing.sql")


def downgrade() -> None:
    _run("0008_call_pairing_down.sql")


def _run(name: str) -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    # The driver itself: it sends many statements at once and leaves every % alone.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute((_SQL / name).read_text())
    op.execute("RESET ROLE")
