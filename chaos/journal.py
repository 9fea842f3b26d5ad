"""The journal: the traffic's requests and their answers, the basis of the count.

Each record is one line of JSON with the machine's monotonic time in seconds. The journal
writes the line at once, so that the death of a process loses none.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

#: An organization and a key that is unique in it: a debit's key, a call's ID, an event's ID.
Name = tuple[str, str]


class Journal:
    """The journal file. Many threads of one process append to it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def record_request(self, kind: str, organization_id: str, key: str, micros: int = 0) -> None:
        """Record that a request is about to be sent."""
        self._write("asked", kind, organization_id, key, micros)

    def record_answer(self, kind: str, organization_id: str, key: str, outcome: str) -> None:
        """Record the final answer to a request."""
        self._write("answered", kind, organization_id, key, outcome)

    def record_no_answer(self, kind: str, organization_id: str, key: str, why: str) -> None:
        """Record that a request got no answer, or an error in place of an answer."""
        self._write("unsure", kind, organization_id, key, why)

    def _write(self, *fields: str | int) -> None:
        # One system call writes the whole line, so that lines of several threads never mix.
        os.write(self._file, json.dumps((*fields, time.monotonic())).encode() + b"\n")


@dataclass
class RecordedRequest:
    """One request: its amount, its newest answer, and how often no answer arrived."""

    micros: int
    outcome: str | None = None
    unsure: int = 0
    #: Monotonic times, in seconds, of the first request and of the last answer.
    asked_at: float = 0.0
    answered_at: float = 0.0


@dataclass
class RecordedTraffic:
    """The journal as read back: requests by kind (debit, webhook, …) and name."""

    requests: dict[str, dict[Name, RecordedRequest]] = field(default_factory=dict)

    def of(self, kind: str) -> dict[Name, RecordedRequest]:
        """Return the requests of one kind, in the order in which they were first made."""
        return self.requests.get(kind, {})

    @property
    def count(self) -> int:
        """The number of different requests."""
        return sum(len(requests) for requests in self.requests.values())


def read_journal(path: Path) -> RecordedTraffic:
    """Read a journal from its beginning."""
    recorded = RecordedTraffic()
    with path.open() as lines:
        for line in lines:
            step, kind, organization_id, key, value, recorded_at = json.loads(line)
            requests = recorded.requests.setdefault(kind, {})
            name = (organization_id, key)
            if step == "asked":
                requests.setdefault(name, RecordedRequest(value, asked_at=recorded_at))
            elif step == "answered":
                requests[name].outcome, requests[name].answered_at = value, recorded_at
            else:
                requests[name].unsure += 1
    return recorded
