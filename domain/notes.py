"""What is written beside an act: how long it may be, so that the ledger can keep it."""

from __future__ import annotations

from base.outcomes import Refused

#: Longest note of an entry, longest name of whoever acts, and longest reason, in characters; the
#: database checks the same.
NOTE_LENGTH_MAX = 1_000
BY_LENGTH_MAX = 200
WHY_LENGTH_MAX = 500


class InvalidNote(Refused):
    """A note, a name or a reason is longer than is kept, or holds what no text of ours may."""

    def __init__(self, what: str, length_max: int) -> None:
        super().__init__("INVALID_NOTE", f"{what}: at most {length_max} characters and no NUL")


def check_note(note: str) -> None:
    """This function will refuse a note that an entry could not keep.

    Raises: InvalidNote.
    """
    _check("the note", note, NOTE_LENGTH_MAX)


def check_who_and_why(by: str, why: str) -> None:
    """This function will refuse a name or a reason that the ledger could not keep.

    Raises: InvalidNote.
    """
    _check("who", by, BY_LENGTH_MAX)
    _check("why", why, WHY_LENGTH_MAX)


def _check(what: str, given: str, length_max: int) -> None:
    if len(given) > length_max or "\0" in given:
        raise InvalidNote(what, length_max)
