"""Start one server process, await it, stop it, and find it again after a kill.

A server that is kept running is restarted whenever it dies unexpectedly. This module does not know
PostgreSQL or Valkey: local.embedded passes the checks for readiness.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from base.clock import wait_until
from base.log import get_logger
from local.errors import EmbeddedServerError
from local.keeper import OnExit, OnRestart
from local.launch import Account, tied_argv

log = get_logger(__name__)

#: The whole environment of a server. Nothing of our own environment is passed on.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
#: Seconds that a server has to become ready, including recovery after a crash.
_START_SECONDS = 60
#: Seconds that a server has for an orderly stop before it gets its last signal.
_STOP_SECONDS = 30
#: Seconds before a dead server is started again: the first and the longest wait. Each wait is twice
#: the wait before it. After a SIGKILL, PostgreSQL cannot start until the dead server's processes
#: have ended.
_RESTART_WAIT_SECONDS_FIRST = 0.1
_RESTART_WAIT_SECONDS_MAX = 5.0


class Server:
    """A child process that writes to a log file and stops when this process dies."""

    def __init__(
        self,
        name: str,
        account: Account,
        log: Path,
        stop_signal: signal.Signals,
        last_signal: signal.Signals,
    ) -> None:
        self._name = name
        self._account = account
        self._log = log
        self._stop_signal = stop_signal
        self._last_signal = last_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        #: A thread holds this lock while it starts a process. stop() holds it to forbid further
        #: starts.
        self._starting = threading.Lock()
        self._keeper: threading.Thread | None = None

    def start(self, argv: Sequence[str], is_ready: Callable[[int], bool]) -> None:
        """Start the server and wait until is_ready(its pid).

        `is_ready` may raise OSError or IndexError for "not yet".
        Raises: EmbeddedServerError with the log line that explains why it did not start.
        """
        with self._starting:
            process, logged_before = self._spawn(argv)
        self._wait_until_ready(process, logged_before, is_ready)

    def keep(
        self,
        argv: Sequence[str],
        is_ready: Callable[[int], bool],
        on_exit: OnExit | None,
        on_restart: OnRestart | None,
    ) -> None:
        """Start the server again each time it dies, until stop(). Call it after start().

        A separate thread restarts the server. It lives as long as the servers that it starts,
        because the system signals a process when the thread that started it ends.
        """

        def watch() -> None:
            while True:
                process = self._process
                code = process.wait() if process is not None else 0
                if self._stopping.is_set():
                    return
                _call_back(on_exit, self._name, code)
                pid = self._restart(argv, is_ready)
                if pid is None:
                    return
                _call_back(on_restart, self._name, pid)

        self._keeper = threading.Thread(target=watch, name=f"keeper of {self._name}", daemon=True)
        self._keeper.start()

    def _restart(self, argv: Sequence[str], is_ready: Callable[[int], bool]) -> int | None:
        """Try until the server is ready; return its process id, or None if stopping."""
        wait = _RESTART_WAIT_SECONDS_FIRST
        while not self._stopping.wait(wait):
            wait = min(wait * 2, _RESTART_WAIT_SECONDS_MAX)
            with self._starting:
                if self._stopping.is_set():
                    return None
                try:
                    process, logged_before = self._spawn(argv)
                except OSError as error:
                    log.warning("server_not_restarted", server=self._name, error=str(error))
                    continue
            try:
                self._wait_until_ready(process, logged_before, is_ready)
            except EmbeddedServerError as error:
                log.warning("server_not_restarted", server=self._name, error=str(error))
                if process.poll() is None:
                    process.send_signal(self._last_signal)
                    process.wait()
                continue
            return process.pid
        return None

    def _spawn(self, argv: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
        """Start the process; return it and the position in the log where its lines begin."""
        file = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        logged_before = os.fstat(file).st_size
        self._account.own(self._log, 0o600)
        try:
            # A separate session: Ctrl-C must not stop the server before its clients.
            process = subprocess.Popen(
                tied_argv(argv, self._account, self._stop_signal),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,
                umask=0o077,
            )
        finally:
            os.close(file)
        self._process = process
        return process, logged_before

    def _wait_until_ready(
        self,
        process: subprocess.Popen[bytes],
        logged_before: int,
        is_ready: Callable[[int], bool],
    ) -> None:
        def is_ready_or_dead() -> bool:
            if process.poll() is not None:
                return True
            with contextlib.suppress(OSError, IndexError):
                return is_ready(process.pid)
            return False

        ended_in_time = wait_until(
            is_ready_or_dead, limit_seconds=_START_SECONDS, every_seconds=0.02
        )
        if not ended_in_time or process.returncode is not None:
            error = error_line(self._log.read_bytes()[logged_before:].decode(errors="replace"))
            raise EmbeddedServerError(f"{self._name} did not start: {error} (see {self._log})")

    def stop(self) -> None:
        """Stop the server, in an orderly way if possible. Replay: nothing happens."""
        with self._starting:
            self._stopping.set()
        if self._process is not None:
            self._end(self._process)
        if self._keeper is not None:
            self._keeper.join(_STOP_SECONDS)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(self._stop_signal)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(self._last_signal)
            process.wait(_STOP_SECONDS)


def _call_back(callback: Callable[[str, int], None] | None, name: str, number: int) -> None:
    if callback is not None:
        try:
            callback(name, number)
        except Exception:  # a failing callback must not end the keeper thread
            log.exception("server_callback_failed", server=name)


def stop_leftover(data: Path, pid_file: Path, stop_signal: signal.Signals) -> None:
    """Stop the server that a killed run left in the data folder, if there is one.

    The server still runs if the system has no death signals, or during the second that it needs to
    stop. Raises: EmbeddedServerError if it does not stop.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return
    if not is_alive(pid):
        return
    if not _is_server_of(pid, data):
        # Another process has this pid now, and PostgreSQL would take it for its own postmaster.
        pid_file.unlink()
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, stop_signal)
    if not wait_until(lambda: not is_alive(pid), limit_seconds=_STOP_SECONDS):
        raise EmbeddedServerError(f"process {pid} of an earlier run in {data} does not stop")


def error_line(output: str) -> str:
    """Return the last line that shows an error; without one, the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    error_lines = [
        line for line in lines if any(marker in line for marker in ("FATAL", "PANIC", "rror"))
    ]
    return (error_lines or lines or ["it printed nothing"])[-1]


def is_alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _is_server_of(pid: int, data: Path) -> bool:
    """Return whether the process is a server of this data folder.

    A pid file may be old, and its pid may now belong to another process. On Linux, both servers
    have their data folder as working directory. Elsewhere, the command line must contain the
    folder's parent.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").resolve() == data.resolve()
        return False
    command = ["ps", "-o", "command=", "-p", str(pid)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    return str(data.parent) in result.stdout
