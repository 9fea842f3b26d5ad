"""`holdfast up`: what it prints, and that it restarts what dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from base.clock import wait_until
from local import ROOT
from tests.support.servers import server_folder

#: Seconds within which all processes must be ready, also on a busy machine.
_UP_SECONDS = 120.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


@pytest.fixture
def running():
    """`up --sandbox` with its own servers; yields environment, state folder, lines."""
    with server_folder() as folder:
        env = {
            name: value
            for name, value in os.environ.items()
            if name not in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "PORT")
        }
        env |= {"PYTHONPATH": str(ROOT), "HOLDFAST_STATE": str(folder / "state"), "COLUMNS": "200"}
        env |= {"PYTHONUNBUFFERED": "1", "PORT": "0"}
        with (folder / "stderr").open("wb") as log:
            process = subprocess.Popen(
                command("up", "--sandbox"), env=env, stdout=subprocess.PIPE, stderr=log, text=True
            )
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
        reader.start()
        try:
            yield env, folder / "state", lines
        finally:
            process.terminate()
            process.wait(_UP_SECONDS)
            reader.join(10)
            process.stdout.close()


def listed(env: dict[str, str]) -> list[dict[str, object]]:
    done = subprocess.run(
        command("worker", "list", "--json"), env=env, capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout) if done.returncode == 0 else []


@pytest.mark.timeout(400)
def test_printed_commands_work_when_up_prints_ready(running):
    env, state, lines = running
    # When it says that it is ready
    assert wait_until(
        lambda: any("Ctrl-C stops all" in line for line in lines), limit_seconds=2 * _UP_SECONDS
    ), lines
    printed = "".join(lines)

    # Then /readyz is not degraded
    base = re.search(r"^API +(http://\S+)/api$", printed, re.MULTILINE)[1]
    assert httpx.get(f"{base}/readyz", timeout=30).json() == {"status": "ready"}
    assert "ready after" in printed

    # And the commands that it prints work as printed: an organization is made, pays, and is shown
    first, *others = [line.strip() for line in lines if "$ORG" in line or "ORG=$" in line]
    assert len(others) == 3
    script = "\n".join([line.strip() for line in lines if line.startswith("  export ")] + [first])
    for line in others:
        script += f"\n{line} || exit 1\nsleep 3"
    ran = subprocess.run(
        ["sh", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    organization, token = ran.stdout, ran.stdout.split()[-1]
    assert re.search(r"balance +[1-9]", organization), organization
    answer = httpx.get(
        f"{base}/api/wallet/balance", headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert answer.status_code == 200, answer.text

    # And its log is JSON lines, each with the name of its process
    log = (state.parent / "stderr").read_text().splitlines()
    records = [json.loads(line) for line in log]
    assert {"relay", "worker-billing", "worker-safety-1"} <= {one.get("process") for one in records}


@pytest.mark.timeout(400)
def test_up_reports_a_killed_process_and_restarts_it(running):
    env, state, lines = running
    # Given all processes, which `worker list` shows
    assert wait_until(
        lambda: len([one for one in listed(env) if one["state"] == "live"]) == 6,
        limit_seconds=_UP_SECONDS,
        every_seconds=1,
    ), lines
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
            return any(line.startswith(name) and what in line for line in lines)

        assert wait_until(
            lambda is_reported=is_reported: (
                is_reported("killed by SIGKILL") and is_reported("restarted")
            ),
            limit_seconds=_UP_SECONDS,
        ), lines

    # And all of them run again
    assert wait_until(
        lambda: len([one for one in listed(env) if one["state"] == "live"]) >= 6,
        limit_seconds=_UP_SECONDS,
        every_seconds=1,
    ), lines
