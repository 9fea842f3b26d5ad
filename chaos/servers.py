"""PostgreSQL and Valkey that can be restarted and killed: durable, embedded, one folder each.

Only from the main thread: a server's death signal follows the thread that started it.
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

#: Seconds in which a killed server has to be up again, recovery included.
_UP_SECONDS = 60.0


class KillableServer:
    """One embedded server, and the ways in which it goes down and comes up again."""

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
        """This function will start the server and wait until it answers."""
        urls = self._servers.start()
        self.url = urls.owner_url if self._postgres else urls.redis_url

    def stop(self) -> None:
        """This function will stop the server in order. Replay: nothing happens."""
        self._servers.stop()

    def restart(self) -> float:
        """This function will stop the server in order, start it, and give the seconds it took."""
        began = time.monotonic()
        self._servers.stop()
        self._start_again()
        return time.monotonic() - began

    def kill(self, number: signal.Signals) -> float:
        """This function will send the server a signal it dies of, start it again, and give the
        seconds it took."""
        began = time.monotonic()
        pid = int(self._pid_file.read_text().split()[0])
        os.kill(pid, number)
        wait_until(lambda: not is_alive(pid), limit_seconds=_UP_SECONDS, every_seconds=0.01)
        # libfaketime removes these only from a process that ends in order.
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            (Path("/dev/shm") / name).unlink(missing_ok=True)  # noqa: S108
        self._servers.stop()
        self._start_again()
        return time.monotonic() - began

    def _start_again(self) -> None:
        # After a SIGKILL, backends that still run keep their memory, and a new postmaster refuses
        # to start beside them: a supervisor tries until it can.
        end = time.monotonic() + _UP_SECONDS
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
        """Stop every process of PostgreSQL (SIGSTOP) until the block ends; none if it is down."""
        stopped: list[int] = []
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The main process first, so that it starts no other meanwhile.
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
        """Send the server's main process a signal that it does not die of."""
        os.kill(int(self._pid_file.read_text().split()[0]), number)

    def set_memory_limit(self, limit_bytes: int) -> None:
        """Have Valkey refuse writes above so many bytes; 0 is no limit."""
        with contextlib.closing(connect(self.url, retries=5)) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", limit_bytes)

    def flush(self) -> None:
        """This function will empty Valkey."""
        with contextlib.closing(connect(self.url, retries=5)) as client:
            client.flushall()
