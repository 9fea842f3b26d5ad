"""Run the SQL files of revisions, which are in the folder sql/ beside this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

_FOLDER = Path(__file__).parent / "sql"


def run_as_owner(name: str) -> None:
    """Run an SQL file as holdfast_owner; wait at most 5 seconds for each lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL ROLE holdfast_owner")
    run_file(name)
    op.execute("RESET ROLE")


def run_file(name: str) -> None:
    """Run an SQL file as the current role, in the revision's transaction."""
    # The driver sends all statements of a file at once and does not interpret % characters.
    driver: Any = op.get_bind().connection.driver_connection
    driver.execute((_FOLDER / name).read_text())
