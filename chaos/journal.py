"""What the traffic asked for and what it was answered: the record that the house is judged by.

One line of JSON for each word, with the machine's monotonic seconds, written at once, so that no
death of a process loses one.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

#: An organization and a key of its own: a debit's key, a call's id, an event's id.
Name = tuple[str, str]


class Journal:
    """The file as it is written, by many threads of one process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def asked(self, what: str, organization_id: str, key: str, micros: int = 0) -> None:
        """This function will note that something is about to be asked for."""
        self._write("asked", what, organization_id, key, micros)

    def told(self, what: str, organization_id: str, key: str, outcome: str) -> None:
        """This function will note the final answer."""
        self._write("told", what, organization_id, key, outcome)

    def unsure(self, what: str, organization_id: str, key: str, why: str) -> None:
        """This function will note that no answer came, or an error instead of one."""
        self._write("unsure", what, organization_id, key, why)

    def _write(self, *words: str | int) -> None:
        # One call of the system a line: lines of several threads never mix.
        os.write(self._file, json.dumps((*words, time.monotonic())).encode() + b"\n")


@dataclass
class Wish:
    """One thing that was asked for: how much, the newest answer, and how often none came."""

    micros: int
    outcome: str | None = None
    unsure: int = 0
    #: When it was first asked for and last answered, in the machine's monotonic seconds.
    asked_at: float = 0.0
    told_at: float = 0.0


@dataclass
class Story:
    """The journal read back: wishes by what they are (debit, reserve, webhook, …) and name."""

    wishes: dict[str, dict[Name, Wish]] = field(default_factory=dict)

    def of(self, what: str) -> dict[Name, Wish]:
        """This function will give the wishes of one kind, in the order in which they were made."""
        return self.wishes.get(what, {})

    @property
    def count(self) -> int:
        """How many different things were asked for."""
        return sum(len(wishes) for wishes in self.wishes.values())


def read_journal(path: Path) -> Story:
    """This function will read a journal from its beginning."""
    story = Story()
    with path.open() as lines:
        for line in lines:
            word, what, organization_id, key, more, at = json.loads(line)
            wishes = story.wishes.setdefault(what, {})
            name = (organization_id, key)
            if word == "asked":
                wishes.setdefault(name, Wish(more, asked_at=at))
            elif word == "told":
                wishes[name].outcome, wishes[name].told_at = more, at
            else:
                wishes[name].unsure += 1
    return story
