"""Ends each lasting fault at its time, even while the next fault is slow to begin.

A restart of PostgreSQL takes seconds. If a fault ended only after that, a request held back at
Twilio could arrive later than the product allows for. The product would then fail for no fault of
its own.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count


class Endings:
    """A thread that calls each `undo` when it is due."""

    def __init__(self) -> None:
        #: Ordered by due time, then by the order in which they were added.
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._numbers = count()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="endings", daemon=True)
        self._thread.start()

    def after(self, seconds: float, undo: Callable[[], None]) -> None:
        """Call `undo` after this many seconds."""
        with self._changed:
            heapq.heappush(self._agenda, (time.monotonic() + seconds, next(self._numbers), undo))
            self._changed.notify()

    def close(self) -> None:
        """Wait until every fault has ended. Raises: the first error that an `undo` raised."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (undo := self._next()) is not None:
            try:
                undo()
            except BaseException as error:
                self._error = self._error or error

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                if not self._agenda:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                seconds = self._agenda[0][0] - time.monotonic()
                if seconds <= 0:
                    return heapq.heappop(self._agenda)[2]
                self._changed.wait(seconds)
