"""Ends each lasting fault at its time, whatever else takes long meanwhile.

A restart of PostgreSQL takes seconds, and so does an event that is sent until an ingress accepts
it. If a fault ended only after those, a request held back at Twilio could arrive later than the
product allows for. The product would then fail for no fault of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Endings:
    """Calls each `undo` when it is due, on a thread of its own."""

    def __init__(self) -> None:
        self._timers: list[threading.Timer] = []
        self._error: BaseException | None = None

    def after(self, seconds: float, undo: Callable[[], None]) -> None:
        """Call `undo` after this many seconds."""
        timer = threading.Timer(seconds, self._call, (undo,))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def close(self) -> None:
        """Wait until every fault has ended. Raises: the first error that an `undo` raised."""
        for timer in self._timers:
            timer.join()
        if self._error is not None:
            raise self._error

    def _call(self, undo: Callable[[], None]) -> None:
        try:
            undo()
        except BaseException as error:
            self._error = self._error or error
