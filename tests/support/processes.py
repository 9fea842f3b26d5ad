"""Real processes for tests, which may be killed: the command and test functions.

They are forked from a server that has imported everything once, because a cold start takes seconds.
The real command runs, with its own environment.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from base.clock import wait_until
from base.enums import Queue
from local.ports import is_answering
from local.worker import work
from tests.support.world import WAITS
from workers.provider_waits import ProviderWaits

#: Seconds within which a process must start or end, also on a busy machine.
PROCESS_SECONDS = 30.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", "cli.main", "tests.workers.failing_processes"])


@dataclass
class Running:
    """One process, and its output."""

    process: ForkServerProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, text: str) -> None:
        """Wait until the process has written the text."""
        there = wait_until(
            lambda: text in self.output() or not self.process.is_alive(),
            limit_seconds=PROCESS_SECONDS,
        )
        assert there and text in self.output(), self.output()

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self.process.kill()
        self.process.join(PROCESS_SECONDS)
        assert self.process.exitcode == -9, (self.process.exitcode, self.output())

    def stop(self) -> int:
        """End the process by SIGTERM and return its exit code."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> int:
        """Wait until the process has ended and return its exit code."""
        self.process.join(PROCESS_SECONDS)
        assert self.process.exitcode is not None, self.output()
        return self.process.exitcode


class Processes:
    """Starts processes with one environment, and kills those that run at the end."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self._folder = folder
        self._all: list[Running] = []

    def command(self, *arguments: str, **environment: str) -> Running:
        """Run `holdfast ARGUMENTS`; keyword arguments are environment variables."""
        return self.call(_run_command, arguments, **environment)

    def worker(
        self, *queues: str, threads: int = 2, waits: ProviderWaits = WAITS, **environment: str
    ) -> Running:
        """Start a worker and wait until it works."""
        asked = {Queue(queue) for queue in queues}
        worker = self.call(work, asked, threads, waits, **environment)
        worker.wait_for("worker_started")
        return worker

    def ingress(self, port: int) -> Running:
        """Start an ingress on a port and wait until it can store events."""
        ingress = self.command("ingress", PORT=str(port))
        ready = partial(is_answering, f"http://127.0.0.1:{port}/readyz")
        assert wait_until(ready, limit_seconds=PROCESS_SECONDS), ingress.output()
        return ingress

    def relay(self, **environment: str) -> Running:
        """Start a relay and wait until it runs."""
        relay = self.command("relay", **environment)
        relay.wait_for("relay_started")
        return relay

    def call(self, function: Callable[..., None], *arguments: Any, **environment: str) -> Running:
        """Call a module's function in its own process."""
        log = self._folder / f"process-{len(self._all)}.log"
        process = _context.Process(
            target=_run,
            args=({**self.environment, **environment}, str(log), function, arguments),
            daemon=True,
        )
        process.start()
        self._all.append(Running(process, log))
        return self._all[-1]

    def end_all(self) -> None:
        for one in self._all:
            if one.process.is_alive():
                one.process.kill()
            one.process.join(PROCESS_SECONDS)
            one.process.close()


def _run(
    environment: dict[str, str], log: str, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout.reconfigure(line_buffering=True)
    function(*arguments)


def _run_command(arguments: tuple[str, ...]) -> None:
    from cli.main import app

    app(list(arguments))
