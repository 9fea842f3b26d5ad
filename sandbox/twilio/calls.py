"""Twilio's calls: each goes from queued to one of its ends, once, and whoever watches is told.

A suspension ends none of them; only the people on the line or the API do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from sandbox.exchange import Json

LIVE_STATUSES = ("queued", "ringing", "in-progress")


@dataclass
class TwilioCall:
    """One call: what the API shows of it, and who is told when its status changes."""

    shown: Json
    watchers: list[Callable[[TwilioCall], None]] = field(default_factory=list)
    #: Monotonic seconds at which it was answered.
    began: float | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.shown["status"] not in LIVE_STATUSES

    def move(self, status: str) -> None:
        """This function will set the status. Replay: a call that is over stays as it ended."""
        if self.over or self.shown["status"] == status:
            return
        self._set(status)
        for watch in self.watchers:
            watch(self)

    def _set(self, status: str) -> None:
        now = rfc2822_now()
        self.shown |= {"status": status, "date_updated": now}
        if status == "in-progress":
            self.began = time.monotonic()
            self.shown["start_time"] = now
        if self.over:
            seconds = 0 if self.began is None else int(time.monotonic() - self.began)
            self.shown |= {"end_time": now, "duration": str(seconds)}


def rfc2822_now() -> str:
    """This function will write the present instant as Twilio does."""
    return format_datetime(datetime.now(UTC).replace(microsecond=0))
