"""A child process that answers orders: one line of JSON in, one line of JSON out.

The child ends when its standard input is closed. The child therefore never outlives the
driver, even if the driver is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from local import ROOT

Message = dict[str, Any]


class ChildEnded(Exception):
    """A child process ended or did not answer an order. The run then proves nothing."""


class Child:
    """The driver's side of a child process.

    It runs `python -m MODULE` and appends the child's stderr to a log file.
    """

    def __init__(self, module: str, env: Mapping[str, str], log: Path) -> None:
        self._module = module
        # Two threads use the proxy: the driver's main thread and the thread that ends faults.
        self._exchange_lock = threading.Lock()
        with log.open("ab") as errors:
            # In its own session, the child does not receive Ctrl-C. The driver receives it and
            # stops the child in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._log = log

    def ask(self, **order: Any) -> Message:
        """Send one order and wait for its answer. Raises: ChildEnded."""
        with self._exchange_lock:
            line = self._exchange(json.dumps(order) + "\n")
        if not line:
            raise ChildEnded(f"{self._module} ended: see {self._log}")
        answer: Message = json.loads(line)
        return answer

    def _exchange(self, line: str) -> str:
        if self._process.stdin is None or self._process.stdout is None:
            return ""
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except OSError:
            return ""

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the process: close its input, wait 10 s, then kill it.

        Replay: nothing happens.
        """
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def serve_orders(answer: Callable[[Message], Message]) -> None:
    """Answer orders, in the child process, until standard input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
