"""Cut pooled connections that a silent server leaves without a response.

The server's own limits end a statement only while the server still responds. Without this watchdog,
a thread would wait for a silent server for hours, and the pool would lose the connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Any

from sqlalchemy import Engine, event

from base.log import get_logger

log = get_logger(__name__)

#: Seconds between two checks.
_LOOK_SECONDS = 0.25


class Patience:
    """A watchdog that cuts connections checked out for more than `longest_seconds`.

    A thread that waits on such a connection gets the error of a closed connection. The watchdog has
    one thread, which starts with the first checkout. Do not use it in a process that forks later.
    """

    def __init__(self, engine: Engine, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._out: dict[Any, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        event.listen(engine, "checkout", self._taken)
        event.listen(engine, "checkin", self._returned)
        event.listen(engine, "invalidate", self._lost)

    def stop(self) -> None:
        """End the watchdog once every connection is returned to the pool."""
        self._is_stopped = True

    def _taken(self, connection: Any, record: Any, _proxy: Any) -> None:
        with self._lock:
            self._out[record] = (time.monotonic(), connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="patience", daemon=True)
                self._thread.start()

    def _returned(self, _connection: Any, record: Any) -> None:
        # The lock keeps the watchdog from cutting a connection that was just returned or closed.
        with self._lock:
            self._out.pop(record, None)

    def _lost(self, connection: Any, record: Any, _error: Any) -> None:
        self._returned(connection, record)

    def _watch(self) -> None:
        while self._out or not self._is_stopped:
            time.sleep(_LOOK_SECONDS)
            with self._lock:
                oldest = time.monotonic() - self._longest_seconds
                silent = [key for key, (since, _) in self._out.items() if since < oldest]
                for key in silent:
                    _, connection = self._out.pop(key)
                    _cut(connection)
            if silent:
                log.error("silent_connections_cut", count=len(silent))


def _cut(connection: Any) -> None:
    # Only the socket is shut down, through a duplicate descriptor, because another thread is using
    # the connection. That thread wakes up as if the server had closed the connection.
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
