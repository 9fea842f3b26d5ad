"""Time for the edges. Business time is `now`, taken once at an edge and passed down.

Inside a job or a command it is the database's clock (db.run gives it); waits use a monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


def utc_now() -> datetime:
    """This function will give this machine's time, for logs and for edges without a database."""
    return datetime.now(UTC)


def wait_until(
    condition: Callable[[], bool], *, limit_seconds: float, every_seconds: float = 0.05
) -> bool:
    """This function will poll until the condition holds or time is up; True if it held."""
    end = time.monotonic() + limit_seconds
    while True:
        if condition():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(every_seconds)
