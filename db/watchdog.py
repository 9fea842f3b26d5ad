"""Patience with a server that has gone silent: what a connection is out for too long is cut.

The server's own limits end a statement while it still speaks to us. Where it does not, the thread
that waits would wait for hours, and its connection be lost to the pool.
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

#: Seconds between two looks.
_LOOK_SECONDS = 0.25


class Patience:
    """Cuts connections of a pool that were taken out longer ago than `longest_seconds`.

    Whoever waits on one is told that it is lost, as if the server had ended it. One thread, which
    begins with the first connection; not for processes that fork.
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
        """This function will end the looking once everything is given back."""
        self._is_stopped = True

    def _taken(self, connection: Any, record: Any, _proxy: Any) -> None:
        with self._lock:
            self._out[record] = (time.monotonic(), connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="patience", daemon=True)
                self._thread.start()

    def _returned(self, _connection: Any, record: Any) -> None:
        # Under the lock: a connection is not cut once it is given back, or closed.
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
                log.error("silent connections cut", count=len(silent))


def _cut(connection: Any) -> None:
    # The socket, by a handle of our own: the connection itself is in the hands of its thread, which
    # wakes up as it would where the server had hung up.
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
