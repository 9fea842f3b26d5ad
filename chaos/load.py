"""How busy the machine is: on an overloaded one, whether something comes in time says nothing."""

from __future__ import annotations

import os

#: Processes that wait for each core (the load average) above which what is late is not counted.
OVERLOADED = 5.0


def load_of_each_core() -> float:
    """Return the load average of the last minute, for each core."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
