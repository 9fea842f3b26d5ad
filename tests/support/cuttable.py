"""A connection to PostgreSQL that can be cut and restored, as in an outage."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from db.address import driver_url


class Way:
    """Passes bytes between clients and the real server, until a test disturbs it."""

    def __init__(self, url: str) -> None:
        self._target = conninfo_to_dict(driver_url(url))
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._port = 0
        #: While set, the server's answers are lost. A connection that has lost one stays silent for
        #: good: a host that has vanished does not even close its connections.
        self.deaf = threading.Event()
        #: The number of connections that have become silent in this way.
        self.silent_count = 0
        #: If set, the next commit is carried out, and its answer and connection are lost.
        self.loses_commits = threading.Event()
        #: Seconds by which each of the server's answers is delayed.
        self.late_seconds = 0.0
        self.mend()

    @property
    def url(self) -> str:
        """The database's address through this proxy."""
        known = self._target
        user, password = quote(str(known["user"])), quote(str(known.get("password", "")), safe="")
        return f"postgresql://{user}:{password}@127.0.0.1:{self._port}/{known['dbname']}"

    def cut(self) -> None:
        """End every connection and refuse new ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        """Let clients through again, at the same address."""
        self.deaf.clear()
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = self._connect()
            self._open += [client, server]
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass_on, args=(source, sink, answers), daemon=True
                ).start()

    def _connect(self) -> socket.socket:
        host, port = str(self._target["host"]), int(self._target.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        is_silent = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.late_seconds:
                    time.sleep(self.late_seconds)
                if not answers and b"COMMIT" in data and self.loses_commits.is_set():
                    self._lose_commit(source, sink, data)
                    break
                if answers and self.deaf.is_set() and not is_silent:
                    is_silent = True
                    self.silent_count += 1
                if not is_silent:
                    sink.sendall(data)
        if is_silent:
            return
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _lose_commit(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        # The client is disconnected before the server answers, so it never learns the outcome.
        self.loses_commits.clear()
        client.shutdown(socket.SHUT_RDWR)
        server.sendall(data)
