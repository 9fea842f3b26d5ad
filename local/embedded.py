"""Run PostgreSQL and Valkey as child processes, for a machine without them.

They listen only on unix sockets in a private folder. On Linux they also stop if this process is
killed; elsewhere the next start stops them. Only one process may use a state folder at a time. With
durable settings (`fast=False`), their data survives a kill and a crash of the machine.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psycopg

from local.binaries import find_postgres, find_valkey, usable_by
from local.errors import EmbeddedServerError
from local.keeper import OnExit, OnRestart
from local.launch import Account, server_account, state_folder, tied_argv
from local.server import ENVIRONMENT, Server, error_line, stop_leftover

__all__ = ["EmbeddedServerError", "EmbeddedServers", "ServerUrls"]

#: Name of Holdfast's database.
DATABASE = "holdfast"
#: Longest path of a socket, in bytes: 107 on Linux, 103 on macOS.
_SOCKET_PATH_BYTES = 103
#: Longest name of a socket in the folder.
_SOCKET_NAME = ".s.PGSQL.5432"

_DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class RestartCallbacks:
    """Callbacks for a server that died and for a server that runs again."""

    on_exit: OnExit | None = None
    on_restart: OnRestart | None = None


@dataclass(frozen=True)
class ServerUrls:
    """Addresses of the started servers; empty for a server that was not requested."""

    owner_url: str
    redis_url: str


class EmbeddedServers:
    """PostgreSQL 18 and Valkey from wheels or from the system, in one state folder.

    `fast=True` is for tests: a crash of the machine may lose or damage PostgreSQL's data, and
    Valkey starts empty each time. A kill of any process still loses nothing in PostgreSQL.
    `postgres_bin` and `redis_bin` are folders whose programs are used instead. With `keep`, a
    server that dies unexpectedly is started again with the same data.
    """

    def __init__(
        self,
        state: Path,
        *,
        postgres: bool = True,
        redis: bool = True,
        fast: bool = False,
        postgres_bin: Path | None = None,
        redis_bin: Path | None = None,
        keep: RestartCallbacks | None = None,
        postgres_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._wanted_state = state.absolute()
        self._with_postgres = postgres
        self._with_redis = redis
        self._fast = fast
        self._postgres_bin = postgres_bin
        self._redis_bin = redis_bin
        self._keep = keep
        # Set by /usr/bin/env for PostgreSQL only. The program that switches the
        # operating system user runs before that, and must not inherit these variables.
        self._postgres_env = [
            f"{name}={value}" for name, value in (postgres_environment or {}).items()
        ]
        self._servers: list[Server] = []
        self._lock_file: int | None = None
        # Set by start().
        self._account = Account("")
        self._state = self._wanted_state
        self._sockets = self._wanted_state

    def __enter__(self) -> ServerUrls:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> ServerUrls:
        """Start the servers and wait until they answer.

        Servers left by a killed run are stopped first, and their data is used. Call this on the
        main thread: on Linux the servers stop when the thread that started them ends.

        Raises: EmbeddedServerError if they cannot start, or if another process uses the folder.
        """
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedServerError("embedded servers must be started from the main thread")
        self._account = server_account()
        try:
            self._state = state_folder(self._wanted_state, self._account)
            self._lock()
            self._sockets = self._make_socket_folder()
            owner_url = self._start_postgres() if self._with_postgres else ""
            redis_url = self._start_valkey() if self._with_redis else ""
        except OSError as error:
            self.stop()
            raise EmbeddedServerError(f"cannot use the folder {self._state}: {error}") from error
        except BaseException:
            self.stop()
            raise
        return ServerUrls(owner_url, redis_url)

    def stop(self) -> None:
        """Shut down Valkey, then PostgreSQL. Replay: changes nothing.

        Stop their clients first: connected clients lose their connection.
        """
        while self._servers:
            self._servers[-1].stop()
            self._servers.pop()
        if self._lock_file is not None:
            self._remove_socket_folder()
            os.close(self._lock_file)
            self._lock_file = None

    # -- folders ----------------------------------------------------------------------------------

    def _lock(self) -> None:
        file = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise EmbeddedServerError(
                f"another process already runs the servers in {self._state}"
            ) from None
        self._lock_file = file

    def _make_socket_folder(self) -> Path:
        """Create the folder for sockets: `run` in the state folder, or one in /tmp.

        The folder is in /tmp if the path of `run` is too long for a socket or contains a comma.
        PostgreSQL reads a comma as a separator between folders.
        """
        self._remove_socket_folder()
        folder = self._state / "run"
        if len(os.fsencode(folder / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES and "," not in str(folder):
            return self._make_private(folder)
        elsewhere = Path(tempfile.mkdtemp(prefix="holdfast-", dir="/tmp"))
        folder.symlink_to(elsewhere)  # if this run is killed, the next one finds and removes it
        return self._make_private(elsewhere)

    def _remove_socket_folder(self) -> None:
        folder = self._state / "run"
        if folder.is_symlink():
            shutil.rmtree(folder.readlink(), ignore_errors=True)
            folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_private(self, folder: Path) -> Path:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._account.own(folder, 0o700)
        return folder

    # -- the servers ------------------------------------------------------------------------------

    def _start_postgres(self) -> str:
        postgres = find_postgres(self._postgres_bin) / "postgres"
        program = usable_by(self._account, postgres, self._state)
        data = self._state / "postgres"
        password_file = self._state / "postgres.password"
        if (data / "PG_VERSION").exists():
            stop_leftover(data, data / "postmaster.pid", signal.SIGINT)
        else:
            self._create_cluster(program.with_name("initdb"), data, password_file)
        settings = (
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "max_connections=200",
            "shared_preload_libraries=",
            "timezone=UTC",
            "log_timezone=UTC",
            *(_FAST if self._fast else _DURABLE),
        )
        prefix = ["/usr/bin/env", *self._postgres_env] if self._postgres_env else []
        argv = [*prefix, str(program), "-D", str(data), "-k", str(self._sockets)]
        argv += [part for setting in settings for part in ("-c", setting)]

        def is_ready(pid: int) -> bool:
            # A file left by an earlier postmaster also has "ready", so the pid must match.
            lines = (data / "postmaster.pid").read_text().splitlines()
            return lines[0] == str(pid) and lines[7].strip() == "ready"

        # The postmaster never gets SIGKILL, because its backends would live on.
        self._launch("postgres", argv, signal.SIGINT, signal.SIGQUIT, is_ready)
        password = password_file.read_text()
        self._create_database(password)
        folder = quote(str(self._sockets), safe="")
        return f"postgresql+psycopg://postgres:{quote(password)}@/{DATABASE}?host={folder}"

    def _create_cluster(self, initdb: Path, data: Path, password_file: Path) -> None:
        unfinished = data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        self._make_private(unfinished)
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24))
        self._account.own(password_file, 0o600)
        argv = [str(initdb), "-D", str(unfinished), "-U", "postgres", "-A", "scram-sha-256"]
        argv += ["--pwfile", str(password_file), "-E", "UTF8", "--no-locale", "-k"]
        argv += ["--no-sync"] if self._fast else []
        done = subprocess.run(
            tied_argv(argv, self._account, signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            cwd="/",
            env=ENVIRONMENT,
        )
        if done.returncode:
            raise EmbeddedServerError(f"initdb failed: {error_line(done.stderr or done.stdout)}")
        unfinished.rename(data)  # last: a run killed inside initdb leaves no partial cluster

    def _create_database(self, password: str) -> None:
        # With keyword arguments, neither the folder nor the password needs quoting.
        with psycopg.connect(
            host=str(self._sockets),
            port=5432,
            user="postgres",
            password=password,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if known.fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _start_valkey(self) -> str:
        program = usable_by(self._account, find_valkey(self._redis_bin), self._state)
        data = self._make_private(self._state / "valkey")
        stop_leftover(data, data / "pid", signal.SIGTERM)
        path = self._sockets / "valkey.sock"
        argv = [str(program), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
        argv += ["--dir", str(data), "--pidfile", str(data / "pid"), "--daemonize", "no"]
        argv += ["--appendonly", "no" if self._fast else "yes", "--appendfsync", "always"]
        argv += ["--save", "", "--maxmemory-policy", "noeviction"]

        def is_ready(_: int) -> bool:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(path))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")  # -LOADING while it reads its data

        self._launch("valkey", argv, signal.SIGTERM, signal.SIGKILL, is_ready)
        return f"unix://{quote(str(path))}?db=0"

    def _launch(
        self,
        name: str,
        argv: Sequence[str],
        stop_signal: signal.Signals,
        last_signal: signal.Signals,
        is_ready: Callable[[int], bool],
    ) -> None:
        server = Server(name, self._account, self._state / f"{name}.log", stop_signal, last_signal)
        self._servers.append(server)  # first, so that an interrupted start is stopped too
        server.start(argv, is_ready)
        if self._keep is not None:
            server.keep(argv, is_ready, self._keep.on_exit, self._keep.on_restart)
