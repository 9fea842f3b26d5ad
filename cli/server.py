"""One server process below an account: started, waited for, stopped, and found again after a kill.

Knows nothing of PostgreSQL or Valkey; cli.embedded tells it what ready means.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from base.clock import wait_until
from cli.launch import Account, EmbeddedServerError, tied_argv

#: What a server sees of our environment: nothing.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
#: Seconds a server may take to answer; recovery after a crash is included.
_START_SECONDS = 60
#: Seconds a server may take to stop in order before it is stopped at once.
_STOP_SECONDS = 30


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

    def start(self, argv: Sequence[str], is_ready: Callable[[int], bool]) -> None:
        """This function will start the server and wait until is_ready(its pid).

        is_ready may raise OSError or IndexError for "not yet".
        Raises: EmbeddedServerError with the line of the log that tells why it did not start.
        """
        file = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        told_before = os.fstat(file).st_size
        self._account.own(self._log, 0o600)
        try:
            # A session of its own: Ctrl-C must not reach it before those who use it are done.
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

        def is_ready_or_dead() -> bool:
            if process.poll() is not None:
                return True
            with contextlib.suppress(OSError, IndexError):
                return is_ready(process.pid)
            return False

        answered = wait_until(is_ready_or_dead, limit_seconds=_START_SECONDS, every_seconds=0.02)
        if not answered or process.returncode is not None:
            told = telling_line(self._log.read_bytes()[told_before:].decode(errors="replace"))
            raise EmbeddedServerError(f"{self._name} did not start: {told} (see {self._log})")

    def stop(self) -> None:
        """This function will stop the server, in order if it can. Replay: nothing happens."""
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(self._last_signal)
            self._process.wait(_STOP_SECONDS)


def stop_leftover(data: Path, pid_file: Path, stop_signal: signal.Signals) -> None:
    """This function will stop the server a killed run left in the data folder, if there is one.

    Where no death signal exists, or within the second that stopping takes, it still runs.
    Raises: EmbeddedServerError when it does not stop.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return
    if not is_alive(pid):
        return
    if not _works_in(pid, data):
        # The number was given to another process since, which PostgreSQL would take for its own.
        pid_file.unlink()
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, stop_signal)
    if not wait_until(lambda: not is_alive(pid), limit_seconds=_STOP_SECONDS):
        raise EmbeddedServerError(f"process {pid} of an earlier run in {data} does not stop")


def telling_line(output: str) -> str:
    """This function will give the line that says what went wrong, or else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    bad = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "rror"))]
    return (bad or lines or ["it said nothing"])[-1]


def is_alive(pid: int) -> bool:
    """This function will tell whether the process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _works_in(pid: int, data: Path) -> bool:
    """Both servers work in their data folder, so that no other process is taken for ours."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").resolve() == data.resolve()
        return False
    command = ["ps", "-o", "command=", "-p", str(pid)]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    return str(data.parent) in listed.stdout
