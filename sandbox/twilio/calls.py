"""Twilio's calls: each reaches one final status, once, and notifies its watchers.

Suspending an account ends none of its calls. Only the people on the line or the API end a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from sandbox.exchange import Json
from sandbox.store import epoch_from_monotonic, monotonic_from_epoch

LIVE_STATUSES = ("queued", "ringing", "in-progress")


@dataclass
class TwilioCall:
    """One call: what the API shows of it, and the functions to run at a status change."""

    shown: Json
    watchers: list[Callable[[TwilioCall], None]] = field(default_factory=list)
    #: Monotonic seconds at which the call was answered.
    answered_at: float | None = None
    #: Address of the callbacks about changes of status, and how many were sent. None: no callbacks.
    callback_url: str | None = None
    callbacks: int = 0

    @property
    def over(self) -> bool:
        """Whether the call has ended, for any reason."""
        return self.shown["status"] not in LIVE_STATUSES

    def set_status(self, status: str) -> None:
        """Set the status and notify the watchers.

        Replay: a call that has ended, or already has the status, does not change.
        """
        if self.over or self.shown["status"] == status:
            return
        self._record_status(status)
        for watch in self.watchers:
            watch(self)

    def _record_status(self, status: str) -> None:
        now = rfc2822_now()
        self.shown |= {"status": status, "date_updated": now}
        if status == "in-progress":
            self.answered_at = time.monotonic()
            self.shown["start_time"] = now
        if self.over:
            seconds = 0 if self.answered_at is None else int(time.monotonic() - self.answered_at)
            self.shown |= {"end_time": now, "duration": str(seconds)}


def pack_call(call: TwilioCall) -> Json:
    """Return the fields of a call that survive a restart."""
    return {
        "shown": call.shown,
        "began_at": epoch_from_monotonic(call.answered_at),
        "callback_url": call.callback_url,
        "callbacks": call.callbacks,
    }


def unpack_call(packed: Json) -> TwilioCall:
    """Rebuild a call from the result of `pack_call`, without its watchers."""
    answered_at = monotonic_from_epoch(packed["began_at"])
    return TwilioCall(packed["shown"], [], answered_at, packed["callback_url"], packed["callbacks"])


def rfc2822_now() -> str:
    """Format the current time as Twilio does."""
    return format_datetime(datetime.now(UTC).replace(microsecond=0))
