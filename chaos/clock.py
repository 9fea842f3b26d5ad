"""PostgreSQL's clock, which a run steps: libfaketime reads its offset from a file.

Only wall-clock time steps. Waits that use the monotonic clock are not affected. If the library is
missing, the clock is not stepped and the run reports that.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

#: Path of the library in Debian's package faketime. The folder is named after the machine's
#: architecture.
_LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"
#: Seconds after which every process of the server has read a new offset.
STEP_SEEN_SECONDS = 2.1


class DatabaseClock:
    """The clock offset of one server, stored in a file that its user can read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset_seconds = 0
        #: Monotonic times, in seconds, of each step forward, also of a return from a step back.
        self.forward_at: list[float] = []
        libraries = sorted(Path("/").glob(_LIBRARIES[1:])) if sys.platform == "linux" else []
        self._library = libraries[0] if libraries else None
        #: Why the clock cannot be stepped; empty if it can.
        self.missing = (
            "" if libraries else "libfaketime is not installed (Debian's package faketime)"
        )

    @property
    def can_step(self) -> bool:
        return self._library is not None

    def environment(self) -> dict[str, str]:
        """Return the environment variables that give the server this clock.

        The result is empty if the library is missing.
        """
        if self._library is None:
            return {}
        self.step(0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Each process of the server reads the file once a second, so a step reaches it within
            # one second. If the file were read for every clock query, a statement would take three
            # times as long.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, offset_seconds: int) -> None:
        """Set the clock to this offset from the machine's clock, from now on."""
        if offset_seconds > self.offset_seconds:
            self.forward_at.append(time.monotonic())
        # A rename replaces the file, so that PostgreSQL never reads a partly written one.
        new_file = self._file.with_suffix(".new")
        new_file.write_text(f"{offset_seconds:+d}\n")
        new_file.chmod(0o644)
        new_file.rename(self._file)
        self.offset_seconds = offset_seconds
