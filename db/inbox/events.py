"""An inbox event in the hands of its job: taken under its lock, and marked as what it was.

By the driver's own statements, since every webhook passes here: an object of SQLAlchemy's, and the
work of writing it back, would take more time than all else that the job does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

#: Locked by being marked as what nearly every event here turns out to be, which spares a write.
_TAKE = """
    UPDATE inbox SET handled_at = %(now)s, outcome = 'handled'
    WHERE id = %(id)s AND handled_at IS NULL
    RETURNING id, source, event_type, body, received_at, NULL, NULL
"""
_READ = """
    SELECT id, source, event_type, body, received_at, handled_at, outcome FROM inbox
    WHERE id = %(id)s
"""
_MARK = "UPDATE inbox SET outcome = %(outcome)s WHERE id = %(id)s"


@dataclass
class LockedEvent:
    """What an inbox event says, and what became of it: written back by `mark`."""

    id: str
    source: str
    event_type: str
    #: None once it was pruned, long after it was handled.
    body: bytes | None
    received_at: datetime
    handled_at: datetime | None
    outcome: str | None


def take(session: Session, event_id: str, now: datetime) -> LockedEvent | None:
    """This function will lock an event's row, mark it handled, and read it; None if there is none.

    Replay: one that was handled before is read as it is, and neither locked nor changed.
    """
    connection = session.connection()
    row = connection.exec_driver_sql(_TAKE, {"id": event_id, "now": now}).one_or_none()
    if row is None:
        row = connection.exec_driver_sql(_READ, {"id": event_id}).one_or_none()
    return None if row is None else LockedEvent(*row)


def mark(session: Session, event: LockedEvent) -> None:
    """This function will write down what a taken event was, where that is not "handled"."""
    if event.outcome != "handled":
        session.connection().exec_driver_sql(_MARK, {"id": event.id, "outcome": event.outcome})
