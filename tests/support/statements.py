"""Counts the statements that a test's code sends, and the pages that they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session


@contextmanager
def recorded() -> Iterator[list[tuple[str, Any]]]:
    """Collect every statement that any engine of this process sends meanwhile."""
    sent: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        sent.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def pages_read(session: Session, work: Callable[[Session], object]) -> int:
    """Count the pages that the statements of `work` read when they run once more."""
    connection = session.connection()
    with recorded() as sent:
        work(session)
    pages = 0
    for statement, values in sent:
        result = connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON, BUFFERS) {statement}", values
        )
        plan = result.scalar_one()[0]["Plan"]
        pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return pages
