"""The operator of a manual operation, with the reason for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from base.outcomes import Refused
from base.problems.operators import INVALID_NOTE, REASON_REQUIRED

#: Longest name and longest reason, in characters. The database checks the same limits.
NAME_LENGTH_MAX = 200
REASON_LENGTH_MAX = 500
#: Characters that PostgreSQL's text type cannot store: NUL and lone surrogates.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class InvalidNote(Refused):
    """A note, name or reason is too long or has characters that cannot be stored."""

    def __init__(self, what: str, length_max: int) -> None:
        super().__init__(INVALID_NOTE, f"{what}: at most {length_max} characters and no NUL")


class ReasonRequired(Refused):
    """An operator action lacks the operator's name or the reason."""

    def __init__(self, what: str) -> None:
        super().__init__(REASON_REQUIRED, f"{what} must not be empty")


@dataclass(frozen=True)
class Operator:
    """The name of the person who performs a manual operation, and the reason.

    Raises: ReasonRequired, InvalidNote.
    """

    name: str
    reason: str

    def __post_init__(self) -> None:
        for what, text, length_max in (
            ("the operator's name", self.name, NAME_LENGTH_MAX),
            ("the reason", self.reason, REASON_LENGTH_MAX),
        ):
            if not text.strip():
                raise ReasonRequired(what)
            check_text(what, text, length_max)


def check_text(what: str, text: str, length_max: int) -> None:
    """Refuse a text that is too long or that PostgreSQL cannot store.

    Raises: InvalidNote.
    """
    if len(text) > length_max or _UNSTORABLE.search(text):
        raise InvalidNote(what, length_max)
