"""The machine's load: on an overloaded machine, a missed deadline proves nothing."""

from __future__ import annotations

import os

#: Load average per core (processes that run or wait for a core) above which late events are not
#: counted as problems.
OVERLOADED = 5.0


def load_of_each_core() -> float:
    """Return the load average of the last minute, per core."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
