"""The route of a call's rate, calls without a rate, and two more causes of an end.

Why: a call is priced by the number that it uses, which may become known only later. The version
before can go on beside this one: the columns have defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "0009"
down_revision = "0008"

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    _run("0009_call_rating.sql")


def downgrade() -> None:
    _run("0009_call_rating_down.sql")


def _run(name: str) -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    # The driver itself: it sends many statements at once and leaves every % alone.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute((_SQL / name).read_text())
    op.execute("RESET ROLE")
