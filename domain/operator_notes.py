"""The record of operator actions: their names, reasons and notes, and the limits."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.ids import new_id
from base.operators import Operator, check_text
from db.models import OperatorAction

#: Longest note of an entry, in characters. The database checks the same limit.
NOTE_LENGTH_MAX = 1_000


def check_note(note: str) -> None:
    """Refuse a note that an entry cannot store.

    Raises: InvalidNote.
    """
    check_text("the note", note, NOTE_LENGTH_MAX)


def record_action(
    session: Session, act: str, subject: str, *, operator: Operator, now: datetime
) -> None:
    """Record an operator action for which no other table keeps a permanent row.

    Units: `act` is "kind.verb"; `subject` is the id of the object. The record commits or rolls back
    with the action.
    """
    session.add(
        OperatorAction(
            id=new_id("act"),
            act=act,
            subject=subject,
            operator=operator.name,
            why=operator.reason,
            acted_at=now,
        )
    )
    session.flush()
