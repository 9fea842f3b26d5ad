"""A Redis service as in production: a master, a replica and three Sentinels.

They are real processes on loopback, of Valkey or Redis, with passwords. Each can be killed.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from pathlib import Path

import redis

from base.clock import wait_until
from local.binaries import find_valkey
from local.errors import EmbeddedServerError
from local.ports import free_ports

SERVICE = "holdfast"
#: Seconds within which another server must have become the master, on a busy machine.
FAILOVER_SECONDS = 60.0
#: How long a master may be silent, in milliseconds: longer than the pauses of a busy machine.
_DOWN_AFTER_MS = 3_000


def sentinels_missing() -> str:
    """Return which program is missing; empty if none is."""
    try:
        find_valkey(None)
    except EmbeddedServerError as error:
        return str(error)
    return ""


class Service:
    """Starts the five processes below a folder; `stop` ends those that still run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._password = secrets.token_hex(8)
        self._sentinel_password = secrets.token_hex(8)
        self._program = find_valkey(None)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ports = free_ports(5)
        self._logs = 0

    @property
    def url(self) -> str:
        """The address for Holdfast. Its first Sentinel does not exist."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in [1, *self._ports[2:]])
        query = f"sentinel_password={self._sentinel_password}"
        return f"redis+sentinel://:{self._password}@{hosts}/{SERVICE}/0?{query}"

    def start(self) -> None:
        master, replica, *sentinels = self._ports
        self.start_server(master)
        self.start_server(replica, of=master)
        for port in sentinels:
            self._start_sentinel(port, master)
        # A failover needs a synchronized replica, and Sentinels that know it and each other.
        assert wait_until(lambda: self._knows(master), limit_seconds=FAILOVER_SECONDS), self.logs()

    def start_server(self, port: int, of: int | None = None) -> None:
        """Start a server, as another's replica if `of` is given."""
        data = self._folder / f"server-{port}"
        data.mkdir(exist_ok=True)
        options = ["--appendonly", "no", "--save", "", "--repl-diskless-sync-delay", "0"]
        options += ["--requirepass", self._password, "--masterauth", self._password]
        options += ["--replicaof", f"127.0.0.1 {of}"] if of else []
        self._run(port, ["--dir", str(data), *options])

    def kill(self, port: int) -> None:
        """End a process by SIGKILL."""
        process = self._processes.pop(port)
        process.kill()
        process.wait(FAILOVER_SECONDS)

    def master(self) -> int | None:
        """Return the port of the server that most Sentinels regard as the master."""
        masters = [self._address_at(port) for port in self._ports[2:]]
        return max(set(masters), key=masters.count)

    def client(self, port: int, password: str | None = None) -> redis.Redis:
        """Make a client of one of the processes."""
        return redis.Redis("127.0.0.1", port, password=password or self._password)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def stop(self) -> None:
        for port in list(self._processes):
            self.kill(port)

    def _start_sentinel(self, port: int, master: int) -> None:
        # A Sentinel writes what it learns into its own file.
        path = self._folder / f"sentinel-{port}.conf"
        path.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
            f"sentinel auth-pass {SERVICE} {self._password}\n"
            f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 10000\n"
            f"requirepass {self._sentinel_password}\n"
        )
        self._run(port, [str(path), "--sentinel", "--dir", str(self._folder)])

    def _run(self, port: int, arguments: list[str]) -> None:
        self._logs += 1
        own = [] if "--sentinel" in arguments else ["--bind", "127.0.0.1"]
        head = [arguments.pop(0)] if own == [] else []
        argv = [str(self._program), *head, "--port", str(port), *own, *arguments]
        with (self._folder / f"{self._logs}-{port}.log").open("wb") as log:
            self._processes[port] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        assert wait_until(lambda: self._answers(port), limit_seconds=FAILOVER_SECONDS), self.logs()

    def _answers(self, port: int) -> bool:
        with contextlib.suppress(redis.RedisError):
            password = self._password if port in self._ports[:2] else self._sentinel_password
            with self.client(port, password) as client:
                return bool(client.ping())
        return False

    def _knows(self, master: int) -> bool:
        for port in self._ports[2:]:
            with self.client(port, self._sentinel_password) as client:
                found = client.sentinel_masters()[SERVICE]
                replicas = client.sentinel_slaves(SERVICE)
            if found["num-other-sentinels"] < 2 or not replicas:
                return False
            if replicas[0]["master-link-status"] != "ok":
                return False
        return self.master() == master

    def _address_at(self, port: int) -> int | None:
        with self.client(port, self._sentinel_password) as client:
            address = client.sentinel_get_master_addr_by_name(SERVICE)
        return address[1] if address else None
