"""A Redis server for one test, which may be stopped, killed and filled up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from db.redis.client import connect
from local.embedded import EmbeddedServers
from tests.support.servers import server_folder


class KillableRedis:
    """A real server, and the ways in which it stops accepting writes.

    None of them restarts it.
    """

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    def make_stopped(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def make_killed(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def make_full(self) -> None:
        self._set_maxmemory("1")

    def make_read_only(self) -> None:
        with closing(connect(self.url)) as client:
            client.replicaof("127.0.0.1", "1")

    def mend(self) -> None:
        """Let a stopped or full server work again."""
        os.kill(self.pid, signal.SIGCONT)
        self._set_maxmemory("0")

    def _set_maxmemory(self, size: str) -> None:
        with closing(connect(self.url)) as client:
            client.config_set("maxmemory", size)


@contextmanager
def killable_redis() -> Iterator[KillableRedis]:
    """Run a server with an empty database until the block ends."""
    with server_folder() as folder:
        servers = EmbeddedServers(Path(folder) / "state", fast=True, postgres=False)
        url = servers.start().redis_url
        with closing(connect(url)) as client:
            pid = int(client.info("server")["process_id"])
        try:
            yield KillableRedis(url, pid)
        finally:
            # A stopped process could not react to the request to end.
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGCONT)
            servers.stop()
