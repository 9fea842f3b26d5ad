"""Redis at one address, where a second server replaces the first.

The first server lives on as a read-only replica and closes no connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from base.outcomes import HeldBack
from db.redis import circuits as under_test
from db.redis.client import connect
from local.embedded import EmbeddedServers
from tests.db.redis.support import BULK, call, circuits
from tests.support.servers import server_folder
from tests.workers.scenes import eventually


class Address:
    """A loopback port that forwards to a server's socket.

    After `follow`, new connections are forwarded to another server.
    """

    def __init__(self, redis_url: str) -> None:
        self.follow(redis_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listener]
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def follow(self, redis_url: str) -> None:
        self._path = redis_url.removeprefix("unix://").partition("?")[0]

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._ends += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


class Replaced:
    """Two servers behind one address; the second one replaces the first."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new
        self.address = Address(old)

    def replace(self) -> None:
        """Have the second server replace the first, which becomes read-only."""
        self.address.follow(self._new)
        with connect(self._old) as client:
            client.replicaof("127.0.0.1", "1")


@pytest.fixture
def pair():
    with server_folder() as folder, contextlib.ExitStack() as stack:
        old, new = (
            stack.enter_context(EmbeddedServers(folder / name, fast=True, postgres=False)).redis_url
            for name in ("old", "new")
        )
        made = Replaced(old, new)
        stack.callback(made.address.close)
        yield made


def test_jobs_are_notified_and_fetched_at_the_replacing_server(
    world, processes, organization, pair
):
    # Given a worker and a relay that know Redis by its address
    def stage() -> str:
        return world.stage("enforce_organization", organization_id=organization)

    def is_done(job_id: str) -> bool:
        return world.job(job_id).outcome == "done"

    worker = processes.worker("safety", REDIS_URL=pair.address.url)
    relay = processes.relay(REDIS_URL=pair.address.url)
    first = stage()
    assert eventually(lambda: is_done(first))
    # When another server takes the first one's place
    pair.replace()
    # Then jobs that are staged from then on are done
    second = stage()
    assert eventually(lambda: is_done(second), 40), (worker.output(), relay.output())


def test_circuits_are_kept_at_the_replacing_server(monkeypatch, pair):
    # Given circuit breakers that know Redis by its address
    monkeypatch.setattr(under_test, "AWAY_SECONDS", 0.001)
    with connect(pair.address.url, timeout_seconds=5) as client:
        fleet = circuits(client)
        assert call(fleet, BULK, "answered") == ""
        # When another server takes its place, Then bulk calls wait only until that is detected
        pair.replace()

        def goes_out() -> bool:
            with contextlib.suppress(HeldBack):
                return call(fleet, BULK, "answered") == ""
            return False

        assert eventually(goes_out)
