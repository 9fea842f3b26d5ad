"""Keeps named child processes running, stops them in order and leaves none.

Each child has a keeper (local.keeper) that restarts it when it dies. On Linux, the children of a
killed supervisor die with it. The supervisor does not know what the children do.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from base.clock import wait_until
from local.errors import ProcessNotReady
from local.keeper import ChildProcess, Keeper, OnExit, OnRestart, describe_exit
from local.log_lines import LineFormat, prefixed

__all__ = ["ChildProcess", "OnExit", "OnRestart", "Supervisor"]

_Handler = Callable[[int, FrameType | None], Any] | int


class Supervisor:
    """Starts and stops the children of this process, and keeps them running.

    With `log_dir`, each child writes to <log_dir>/<name>.log. Otherwise its lines go to standard
    error as `line_format` writes them: by default, after its name. `on_exit` is called on the
    child's thread for each unexpected end, and `on_restart` when the child has been restarted.
    """

    def __init__(
        self,
        log_dir: Path | None = None,
        on_exit: OnExit | None = None,
        on_restart: OnRestart | None = None,
        line_format: LineFormat = prefixed,
    ) -> None:
        self._log_dir = log_dir
        self._on_exit = on_exit
        self._on_restart = on_restart
        self._line_format = line_format
        self._keepers: dict[str, Keeper] = {}
        self._signals = _Signals()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def start(self, process: ChildProcess) -> None:
        """Start the child, wait until it is ready, and keep it running.

        Raises: ProcessNotReady, after the child was stopped and forgotten; ValueError if the name
        is in use.
        """
        if process.name in self._keepers:
            raise ValueError(f"{process.name} is already started")
        if self._log_dir is not None:
            self._log_dir.mkdir(parents=True, exist_ok=True)
        keeper = Keeper(process, self._log_dir, self._on_exit, self._on_restart, self._line_format)
        self._keepers[process.name] = keeper
        keeper.start()

        def is_ready_or_dead() -> bool:
            return keeper.exits > 0 or (keeper.pid is not None and _is_ready(process))

        try:
            ended_in_time = wait_until(is_ready_or_dead, limit_seconds=process.ready_seconds)
            if keeper.exits and process.ready is not None:
                raise ProcessNotReady(
                    f"{process.name} ended ({describe_exit(keeper.last_code)}) before it was ready;"
                    f" {self._log_location(process)} says why"
                )
            if not ended_in_time:
                raise ProcessNotReady(
                    f"{process.name} was not ready within {process.ready_seconds:g} s"
                )
        except BaseException:
            self.stop(process.name)
            raise

    def _log_location(self, process: ChildProcess) -> str:
        if self._log_dir is None:
            return "its output above"
        return str(self._log_dir / f"{process.name}.log")

    def stop(self, name: str) -> None:
        """Stop the child with SIGTERM, then SIGKILL after its `stop_seconds`.

        Every process in the child's session dies with it. The child's name is then free again.
        """
        keeper = self._keepers[name]
        keeper.stop(hurry=lambda: self._signals.count > 1)
        del self._keepers[name]

    def stop_all(self) -> None:
        """Stop all children in reverse order of start, each within its limit.

        On a second Ctrl-C or SIGTERM, children that still run are killed immediately.
        """
        try:
            if self._signals.listen():
                # No signal requested this stop, so the first signal already makes it hurry.
                self._signals.count = 1
            for name in reversed(list(self._keepers)):
                self.stop(name)
        finally:
            self._signals.close()

    def listen(self) -> None:
        """Treat SIGINT and SIGTERM as requests to stop, until stop_all() has ended.

        wait() returns the first signal. Call this method only on the main thread.
        """
        self._signals.listen()

    def wait(self) -> signal.Signals:
        """Wait for SIGINT or SIGTERM and return it; the caller then calls stop_all().

        Call this method only on the main thread. Until stop_all() has ended, a further signal makes
        it hurry.
        """
        self._signals.listen()
        wait_until(lambda: self._signals.count > 0, limit_seconds=math.inf, every_seconds=0.1)
        return self._signals.last

    def kill(self, name: str, signal_number: signal.Signals = signal.SIGKILL) -> None:
        """Send the child a signal. If the child dies, it is restarted."""
        pid = self._keepers[name].pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def pid(self, name: str) -> int | None:
        """Return the child's process id; None while it waits to be restarted."""
        return self._keepers[name].pid

    def alive(self, name: str) -> bool:
        """Return whether the child is known and runs now."""
        return name in self._keepers and self._keepers[name].pid is not None

    def restarts(self, name: str) -> int:
        """Count how often the child has been restarted."""
        return self._keepers[name].restarts

    def names(self) -> list[str]:
        """List the children's names in the order in which they were started."""
        return list(self._keepers)


class _Signals:
    """Counts SIGINT and SIGTERM while it listens; close() restores earlier handlers."""

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGTERM
        self._earlier_handlers: dict[signal.Signals, _Handler] = {}

    def listen(self) -> bool:
        """Start counting; return False if already started or not on the main thread."""
        if self._earlier_handlers or threading.current_thread() is not threading.main_thread():
            return False
        for number in (signal.SIGINT, signal.SIGTERM):
            self._earlier_handlers[number] = (
                signal.signal(number, self._count_signal) or signal.SIG_DFL
            )
        return True

    def close(self) -> None:
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)
        self._earlier_handlers.clear()
        self.count = 0

    def _count_signal(self, number: int, frame: FrameType | None) -> None:
        # wait() polls a plain number. The interrupted code may hold the lock of an Event.
        self.last = signal.Signals(number)
        self.count += 1


def _is_ready(process: ChildProcess) -> bool:
    return process.ready is None or process.ready()
