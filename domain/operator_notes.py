"""What is written beside an act: who, why and notes, as long as they can be kept."""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy.orm import Session

from base.ids import new_id
from base.outcomes import Refused
from db.models import OperatorAct

#: Longest note of an entry, longest name of whoever acts, and longest reason, in characters; the
#: database checks the same.
NOTE_LENGTH_MAX = 1_000
BY_LENGTH_MAX = 200
WHY_LENGTH_MAX = 500
#: What PostgreSQL's text cannot hold: NUL, and half a pair of surrogates.
_ODD = re.compile("[\0\ud800-\udfff]")


class InvalidNote(Refused):
    """A note, a name or a reason is longer than is kept, or holds what no text of ours may."""

    def __init__(self, what: str, length_max: int) -> None:
        super().__init__("INVALID_NOTE", f"{what}: at most {length_max} characters and no NUL")


class WhoAndWhy(Refused):
    """An act names whoever does it, and its reason."""

    def __init__(self) -> None:
        super().__init__("REASON_REQUIRED", "who and why must be given")


def check_note(note: str) -> None:
    """This function will refuse a note that an entry could not keep.

    Raises: InvalidNote.
    """
    _check("the note", note, NOTE_LENGTH_MAX)


def check_who_and_why(by: str, why: str) -> None:
    """This function will refuse a name or a reason that is blank, or that could not be kept.

    Raises: WhoAndWhy, InvalidNote.
    """
    if not by.strip() or not why.strip():
        raise WhoAndWhy
    _check("who", by, BY_LENGTH_MAX)
    _check("why", why, WHY_LENGTH_MAX)


def note_act(session: Session, act: str, subject: str, *, by: str, why: str, now: datetime) -> None:
    """This function will write down an act by hand that no row of its own tells of for ever.

    Units: `act` is "kind.verb", `subject` the id of what was acted on. It commits or vanishes with
    the act itself. Raises: WhoAndWhy, InvalidNote.
    """
    check_who_and_why(by, why)
    session.add(
        OperatorAct(id=new_id("act"), act=act, subject=subject, operator=by, why=why, acted_at=now)
    )
    session.flush()


def _check(what: str, given: str, length_max: int) -> None:
    if len(given) > length_max or _ODD.search(given):
        raise InvalidNote(what, length_max)
