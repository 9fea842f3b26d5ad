"""The record of operator actions: their names, reasons and notes, and the limits."""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy.orm import Session

from base.ids import new_id
from base.outcomes import Refused
from db.models import OperatorAction

#: Longest note of an entry, name of an operator, and reason, in characters. The database checks the
#: same limits.
NOTE_LENGTH_MAX = 1_000
BY_LENGTH_MAX = 200
WHY_LENGTH_MAX = 500
#: Characters that PostgreSQL's text type cannot store: NUL and lone surrogates.
_ODD = re.compile("[\0\ud800-\udfff]")


class InvalidNote(Refused):
    """A note, name or reason is too long or has characters that cannot be stored."""

    def __init__(self, what: str, length_max: int) -> None:
        super().__init__("INVALID_NOTE", f"{what}: at most {length_max} characters and no NUL")


class WhoAndWhy(Refused):
    """An operator action lacks the operator's name or the reason."""

    def __init__(self) -> None:
        super().__init__("REASON_REQUIRED", "who and why must be given")


def check_note(note: str) -> None:
    """Refuse a note that an entry cannot store.

    Raises: InvalidNote.
    """
    _check("the note", note, NOTE_LENGTH_MAX)


def check_who_and_why(by: str, why: str) -> None:
    """Refuse a name or a reason that is blank or cannot be stored.

    Raises: WhoAndWhy, InvalidNote.
    """
    if not by.strip() or not why.strip():
        raise WhoAndWhy
    _check("who", by, BY_LENGTH_MAX)
    _check("why", why, WHY_LENGTH_MAX)


def record_action(
    session: Session, act: str, subject: str, *, by: str, why: str, now: datetime
) -> None:
    """Record an operator action for which no other table keeps a permanent row.

    Units: `act` is "kind.verb"; `subject` is the id of the object. The record commits or rolls back
    with the action. Raises: WhoAndWhy, InvalidNote.
    """
    check_who_and_why(by, why)
    session.add(
        OperatorAction(
            id=new_id("act"), act=act, subject=subject, operator=by, why=why, acted_at=now
        )
    )
    session.flush()


def _check(what: str, given: str, length_max: int) -> None:
    if len(given) > length_max or _ODD.search(given):
        raise InvalidNote(what, length_max)
