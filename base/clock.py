"""This machine's clock, for logs, for waits and for callers without a database.

Business time is `now`: an edge reads it once and passes it down. Jobs and commands read it from
the database's clock. Waits are measured with the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Read this machine's clock, for logs and for callers without a database."""
    return datetime.now(UTC)


def wait_until(
    condition: Callable[[], bool], *, limit_seconds: float, every_seconds: float = 0.05
) -> bool:
    """Poll until the condition holds or the limit has passed; return whether it held."""
    end = time.monotonic() + limit_seconds
    while True:
        if condition():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(every_seconds)
