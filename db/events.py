"""An inbox event in the hands of its job: read under its lock, and marked once it is handled.

By the driver's own statements, since every webhook passes here: an object of SQLAlchemy's, and the
work of writing it back, would take more time than all else that the job does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

_LOCK = """
    SELECT id, source, event_type, body, received_at, handled_at, outcome FROM inbox
    WHERE id = %(id)s FOR NO KEY UPDATE
"""
_MARK = "UPDATE inbox SET handled_at = %(handled_at)s, outcome = %(outcome)s WHERE id = %(id)s"


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


def lock(session: Session, event_id: str) -> LockedEvent | None:
    """This function will lock an event's row and read it; None if there is none."""
    row = session.connection().exec_driver_sql(_LOCK, {"id": event_id}).one_or_none()
    return None if row is None else LockedEvent(*row)


def mark(session: Session, event: LockedEvent) -> None:
    """This function will write down when the event was handled, and as what."""
    session.connection().exec_driver_sql(
        _MARK, {"id": event.id, "handled_at": event.handled_at, "outcome": event.outcome}
    )
