"""`holdfast up`: it reports what dies, and restarts it. test_tour.py has the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from base.clock import wait_until
from tests.support.servers import server_folder
from tests.support.up import UP_SECONDS, Up


@pytest.fixture
def up():
    with server_folder() as folder:
        made = Up(folder)
        made.start()
        try:
            yield made
        finally:
            made.end()


def listed(env: dict[str, str]) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "worker", "list", "--json"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else []


@pytest.mark.timeout(400)
def test_up_reports_a_killed_process_and_restarts_it(up):
    env, state = up.env, up.state
    # Given all processes, which `worker list` shows
    assert wait_until(
        lambda: len([one for one in listed(env) if one["state"] == "live"]) == 6,
        limit_seconds=UP_SECONDS,
        every_seconds=1,
    ), up.lines
    found = listed(env)
    kinds = [(one["kind"], one["queues"]) for one in found]
    assert kinds.count(("worker", ["safety"])) == 2
    assert ("relay", []) in kinds
    assert ("ingress", []) in kinds

    # When a worker and both servers are killed
    worker = next(one for one in found if one["queues"] == ["safety"])
    pids = {
        "worker-safety": int(str(worker["process"]).rpartition(":")[2]),
        "postgres": int((state / "postgres" / "postmaster.pid").read_text().split()[0]),
        "valkey": int((state / "valkey" / "pid").read_text().split()[0]),
    }
    for name, pid in pids.items():
        os.kill(pid, signal.SIGKILL)

        # Then each death and each restart is reported
        def is_reported(what: str, name: str = name) -> bool:
            return any(line.startswith(name) and what in line for line in up.lines)

        assert wait_until(
            lambda is_reported=is_reported: (
                is_reported("killed by SIGKILL") and is_reported("restarted")
            ),
            limit_seconds=UP_SECONDS,
        ), up.lines

    # And all of them run again
    assert wait_until(
        lambda: len([one for one in listed(env) if one["state"] == "live"]) >= 6,
        limit_seconds=UP_SECONDS,
        every_seconds=1,
    ), up.lines
