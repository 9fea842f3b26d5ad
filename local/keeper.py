"""Keeps one child process running: starts it and restarts it when it dies.

Each child has a thread. The system signals the child when the thread that started it ends, so that
thread lives as long as the child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from base.clock import wait_until
from base.log import get_logger
from local.launch import Account, tied_argv
from local.log_lines import LineFormat, prefixed

#: Seconds before a dead child is restarted: the first and the longest wait. Each wait is twice the
#: wait before it.
_BACKOFF_SECONDS_FIRST = 0.1
_BACKOFF_SECONDS_MAX = 5.0
#: A child that ran this long counts as healthy. The wait after its death is again the first.
_HEALTHY_SECONDS = 10.0

#: Exit code of a child that could not be started, as in shells.
_NOT_STARTED_EXIT_CODE = 126

_log = get_logger(__name__)

#: Called with the name of a child that ended and its exit code, or minus the signal that killed it.
OnExit = Callable[[str, int], None]
#: Called with the name of a child that was restarted and its new process id.
OnRestart = Callable[[str, int], None]


def describe_exit(code: int) -> str:
    """Describe how a process ended: "exit code 1" or "killed by SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"


@dataclass(frozen=True)
class ChildProcess:
    """A child: its command, its readiness check and its time limits.

    Without `ready`, the child is ready once it has started. `ready` is called every 50 ms and must
    return soon.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool] | None = None
    stop_seconds: float = 10.0
    ready_seconds: float = 30.0


class Keeper(threading.Thread):
    """Starts one child, and restarts it each time it dies, until stop() is called."""

    def __init__(
        self,
        process: ChildProcess,
        log_dir: Path | None,
        on_exit: OnExit | None,
        on_restart: OnRestart | None = None,
        line_format: LineFormat = prefixed,
    ) -> None:
        super().__init__(name=f"keeper of {process.name}", daemon=True)
        self._process = process
        self._log_dir = log_dir
        self._on_exit = on_exit
        self._on_restart = on_restart
        self._line_format = line_format
        self._stopping = threading.Event()
        #: The thread holds this lock while it starts a child. stop() holds it to forbid further
        #: starts.
        self._starting = threading.Lock()
        self.pid: int | None = None
        self.exits = 0
        self.restarts = 0
        self.last_code = 0

    def run(self) -> None:
        backoff_seconds = _BACKOFF_SECONDS_FIRST
        while True:
            with self._starting:
                if self._stopping.is_set():
                    return
                self.restarts = self.exits
                child = self._spawn()
            if child is not None and self.exits:
                self._report_restart(child.pid)
            started_at = time.monotonic()
            code = self._wait_for(child)
            if self._stopping.is_set():
                return
            self._note_exit(code)
            if time.monotonic() - started_at >= _HEALTHY_SECONDS:
                backoff_seconds = _BACKOFF_SECONDS_FIRST
            if self._stopping.wait(backoff_seconds):
                return
            backoff_seconds = min(backoff_seconds * 2, _BACKOFF_SECONDS_MAX)

    def _wait_for(self, child: subprocess.Popen[bytes] | None) -> int:
        if child is None:
            return _NOT_STARTED_EXIT_CODE
        code = child.wait()
        self.pid = None
        # Processes left in the child's session would run beside its successor.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        return code

    def _note_exit(self, code: int) -> None:
        self.last_code = code
        self.exits += 1
        if self._on_exit is not None:
            try:
                self._on_exit(self._process.name, code)
            except Exception:  # a failing callback must not end this thread
                _log.exception("on_exit_failed", process=self._process.name)

    def _report_restart(self, pid: int) -> None:
        if self._on_restart is not None:
            try:
                self._on_restart(self._process.name, pid)
            except Exception:
                _log.exception("on_restart_failed", process=self._process.name)

    def stop(self, hurry: Callable[[], bool]) -> None:
        with self._starting:
            self._stopping.set()
        self._signal(signal.SIGTERM)
        wait_until(
            lambda: not self.is_alive() or hurry(),
            limit_seconds=self._process.stop_seconds,
            every_seconds=0.02,
        )
        while self.is_alive():
            self._signal(signal.SIGKILL)
            self.join(1.0)

    def _signal(self, signal_number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        try:
            child = self._start_with_output()
        except OSError as error:  # out of processes or files: treated like an immediate exit
            _log.error("process_not_started", process=self._process.name, error=str(error))
            return None
        self.pid = child.pid
        if child.stdout is not None:
            _OutputCopier(self._process.name, child.stdout, self._line_format).start()
        return child

    def _start_with_output(self) -> subprocess.Popen[bytes]:
        if self._log_dir is None:
            return _start_child(self._process, subprocess.PIPE)
        with (self._log_dir / f"{self._process.name}.log").open("ab") as log:
            return _start_child(self._process, log)


class _OutputCopier(threading.Thread):
    """Copies a child's output to standard error, each line with the child's name."""

    def __init__(self, name: str, output: IO[bytes], line_format: LineFormat) -> None:
        super().__init__(name=f"output of {name}", daemon=True)
        self._child = name
        self._output = output
        self._line_format = line_format

    def run(self) -> None:
        with self._output:
            for line in self._output:
                text = line.decode(errors="replace").rstrip("\r\n")
                sys.stderr.write(self._line_format(self._child, text) + "\n")
                sys.stderr.flush()


def _start_child(process: ChildProcess, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
    # A child gets SIGKILL when the supervisor dies, because it may ignore a gentler signal. A child
    # must tolerate a kill anyway. It has its own session, so that Ctrl-C reaches only the
    # supervisor, which stops all children in order.
    return subprocess.Popen(
        tied_argv(process.argv, Account(""), signal.SIGKILL),
        env=dict(process.env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
