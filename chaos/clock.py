"""PostgreSQL's clock, which a run steps back and forth: libfaketime reads the offset from a file.

Only wall-clock time steps; waits that use the monotonic clock do not. Without the library nothing
is stepped, and the run says so.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

#: Where Debian's package faketime puts the library; the folder is named after the machine.
_LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"
#: Seconds after which each of the server's processes has read a new offset.
SEEN_SECONDS = 2.1


class DatabaseClock:
    """The offset of one server's clock, kept in `file`, which the server's account may read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset_seconds = 0
        #: The machine's monotonic seconds of each step forward, and of each return from one back.
        self.forward_at: list[float] = []
        found = sorted(Path("/").glob(_LIBRARIES[1:])) if sys.platform == "linux" else []
        self._library = found[0] if found else None
        #: Why the clock cannot be stepped; empty if it can.
        self.missing = "" if found else "libfaketime is not installed (Debian's package faketime)"

    @property
    def can_step(self) -> bool:
        return self._library is not None

    def environment(self) -> dict[str, str]:
        """Give the variables with which the server has this clock; none without the library."""
        if self._library is None:
            return {}
        self.step(0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Each of the server's processes reads the file once a second, and so steps within one.
            # Read at every look at the clock, it would make a statement three times as slow.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset_seconds: int) -> None:
        """Set the clock so far from the machine's own, from now on."""
        if offset_seconds > self.offset_seconds:
            self.forward_at.append(time.monotonic())
        # Replaced by a rename, so that PostgreSQL never reads a half-written file.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset_seconds:+d}\n")
        fresh.chmod(0o644)
        fresh.rename(self._file)
        self.offset_seconds = offset_seconds
