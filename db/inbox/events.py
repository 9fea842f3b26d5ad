"""Lock an inbox event for its job, and record its outcome.

The statements go to the driver directly, because every webhook passes here. An object of SQLAlchemy
would take more time than everything else that the job does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

#: Locks the event and marks it handled in one write. Few events need `_MARK` for another outcome.
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
    """An inbox event and its outcome, which `record_outcome` writes back."""

    id: str
    source: str
    event_type: str
    #: None after it was pruned, long after the event was handled.
    body: bytes | None
    received_at: datetime
    handled_at: datetime | None
    outcome: str | None


def take_event(session: Session, event_id: str, now: datetime) -> LockedEvent | None:
    """Lock an event, mark it handled and read it; None if there is none.

    Replay: an event that was handled before is read, and neither locked nor changed.
    """
    connection = session.connection()
    row = connection.exec_driver_sql(_TAKE, {"id": event_id, "now": now}).one_or_none()
    if row is None:
        row = connection.exec_driver_sql(_READ, {"id": event_id}).one_or_none()
    return None if row is None else LockedEvent(*row)


def record_outcome(session: Session, event: LockedEvent) -> None:
    """Record the outcome of a taken event if it is not "handled"."""
    if event.outcome != "handled":
        session.connection().exec_driver_sql(_MARK, {"id": event.id, "outcome": event.outcome})
