"""`holdfast up --sandbox` on its own servers, to kill and to start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from base.clock import wait_until
from local import ROOT

#: Seconds within which all processes must be ready or stopped, also on a busy machine.
UP_SECONDS = 240.0
#: What a person may have set, and `up` must not use here.
_NOT_OURS = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "PORT", "API_JWKS_FILE")


class Up:
    """One installation: a folder, and the process while it runs."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        #: Standard error of all runs.
        self.log = folder / "stderr"
        #: Standard output of the last run, line by line.
        self.lines: list[str] = []
        self.env = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        self.env |= {"PYTHONPATH": str(ROOT), "HOLDFAST_STATE": str(self.state), "PORT": "0"}
        self.env |= {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()

    def start(self) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up", "--sandbox"],
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        lines: list[str] = []
        self._process, self.lines, output = process, lines, process.stdout
        assert output is not None
        self._reader = threading.Thread(target=lambda: lines.extend(output), daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        """Wait until it says that it is ready, and what to do next."""
        process = self._process
        assert process is not None
        assert wait_until(
            lambda: process.poll() is not None or self.has_printed("Ctrl-C stops all"),
            limit_seconds=UP_SECONDS,
        ), self.lines
        assert self.has_printed("ready after"), (self.lines, self.log.read_text()[-4000:])

    def has_printed(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def end(self, signal_number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal and wait until it has ended."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal_number)
        process.wait(UP_SECONDS)
        self._reader.join(UP_SECONDS)
        assert process.stdout is not None
        process.stdout.close()
        self._process = None
