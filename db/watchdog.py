"""Shut down connections whose server does not respond.

The server's own limits end a statement only while the server responds. Without this watchdog, a
thread would wait for a silent server for hours, and a pool would lose the connection. TCP's
timeouts do not notice every silent server: if the server behind a pooler vanishes, the pooler still
acknowledges the packets.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine, event

from base.log import get_logger

log = get_logger(__name__)

#: Seconds between two checks.
_POLL_SECONDS = 0.25


class Watchdog:
    """Shuts down each connection that is in use for more than `longest_seconds`.

    The thread that waits for the server gets the error of a closed connection. The watchdog has one
    thread, which runs while a connection is in use. Do not use it in a process that forks later.
    """

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._in_use: dict[Any, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._is_running = False

    def watch_pool(self, engine: Engine) -> None:
        """Watch every connection from its checkout until it is returned to the pool."""
        event.listen(engine, "checkout", lambda wire, record, _proxy: self._begin(record, wire))
        event.listen(engine, "checkin", lambda _wire, record: self._end(record))
        event.listen(engine, "invalidate", lambda _wire, record, _error: self._end(record))

    @contextlib.contextmanager
    def watching(self, connection: Any) -> Iterator[None]:
        """Watch a connection outside a pool while the block uses it."""
        use = object()
        self._begin(use, connection)
        try:
            yield
        finally:
            self._end(use)

    def _begin(self, use: Any, connection: Any) -> None:
        with self._lock:
            self._in_use[use] = (time.monotonic(), connection)
            if not self._is_running:
                threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
                self._is_running = True

    def _end(self, use: Any) -> None:
        # The lock keeps the watchdog from cutting a connection that was just returned or closed.
        with self._lock:
            self._in_use.pop(use, None)

    def _watch(self) -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            with self._lock:
                oldest = time.monotonic() - self._longest_seconds
                silent = [use for use, (since, _) in self._in_use.items() if since < oldest]
                for use in silent:
                    _cut(self._in_use.pop(use)[1])
                self._is_running = bool(self._in_use)
                is_over = not self._is_running
            if silent:
                log.error("silent_connections_cut", count=len(silent))
            if is_over:
                return


def _cut(connection: Any) -> None:
    # Only the socket is shut down, through a duplicate descriptor, because another thread is using
    # the connection. That thread wakes up as if the server had closed the connection.
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
