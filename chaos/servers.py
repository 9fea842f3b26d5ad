"""PostgreSQL and Valkey servers that can be restarted and killed.

Each is embedded, durable and has its own folder. Only the main thread may start them: a server
receives its death signal when the thread that started it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from base.clock import wait_until
from chaos.processes import children_of, is_stopped
from db.redis.client import connect
from local.embedded import EmbeddedServers
from local.errors import EmbeddedServerError
from local.server import is_alive

#: Seconds within which a killed server must run again, recovery included.
_START_WITHIN_SECONDS = 60.0


class KillableServer:
    """One embedded server that can be stopped, killed and started again."""

    def __init__(
        self, folder: Path, *, postgres: bool, environment: Mapping[str, str] | None = None
    ) -> None:
        self._postgres = postgres
        self._servers = EmbeddedServers(
            folder, postgres=postgres, redis=not postgres, postgres_environment=environment
        )
        self._pid_file = folder / ("postgres/postmaster.pid" if postgres else "valkey/pid")
        self.log = folder / ("postgres.log" if postgres else "valkey.log")
        self.socket = folder / "run" / (".s.PGSQL.5432" if postgres else "valkey.sock")
        self.url = ""

    def start(self) -> None:
        """Start the server and wait until it answers."""
        urls = self._servers.start()
        self.url = urls.owner_url if self._postgres else urls.redis_url

    def stop(self) -> None:
        """Stop the server in order. Replay: nothing happens."""
        self._servers.stop()

    def restart(self) -> float:
        """Stop the server in order and start it. Return the seconds it took."""
        began = time.monotonic()
        self._servers.stop()
        self._start_again()
        return time.monotonic() - began

    def kill(self, number: signal.Signals) -> float:
        """Kill the server with a signal and start it again. Return the seconds it took."""
        began = time.monotonic()
        pid = int(self._pid_file.read_text().split()[0])
        os.kill(pid, number)
        wait_until(
            lambda: not is_alive(pid), limit_seconds=_START_WITHIN_SECONDS, every_seconds=0.01
        )
        # libfaketime removes these files only if the process ends in order.
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            (Path("/dev/shm") / name).unlink(missing_ok=True)  # noqa: S108
        self._servers.stop()
        self._start_again()
        return time.monotonic() - began

    def _start_again(self) -> None:
        # After a SIGKILL, remaining backends keep their shared memory, and a new postmaster refuses
        # to start beside them. This function therefore repeats the start, as a supervisor would do.
        end = time.monotonic() + _START_WITHIN_SECONDS
        while True:
            try:
                self.start()
            except EmbeddedServerError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop every process of PostgreSQL (SIGSTOP) until the block ends.

        If the server is down, nothing is stopped.
        """
        stopped: list[int] = []
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The main process is stopped first, so that it starts no other process meanwhile.
            main = int(self._pid_file.read_text().split()[0])
            os.kill(main, signal.SIGSTOP)
            stopped.append(main)
            wait_until(lambda: is_stopped(main), limit_seconds=5, every_seconds=0.01)
            for child in children_of(main):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGSTOP)
                    stopped.append(child)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send the server's main process a signal that does not end it."""
        os.kill(int(self._pid_file.read_text().split()[0]), number)

    def set_memory_limit(self, limit_bytes: int) -> None:
        """Make Valkey refuse writes above this memory use; 0 means no limit."""
        with contextlib.closing(connect(self.url, retries=5)) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", limit_bytes)

    def flush(self) -> None:
        """Delete all data in Valkey."""
        with contextlib.closing(connect(self.url, retries=5)) as client:
            client.flushall()
