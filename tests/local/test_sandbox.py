"""The sandbox as `up` runs it: a restart keeps its port and its resources."""

from __future__ import annotations

import os
import socket

import httpx
import pytest

from base.clock import wait_until
from local.errors import ProcessNotReady
from local.sandbox import sandbox_info, start_sandbox
from local.supervisor import Supervisor

#: Seconds within which a sandbox must start, also on a busy machine.
_READY_SECONDS = 120.0


@pytest.fixture
def begin(tmp_path):
    """A function that starts a sandbox with `keep` and returns its address."""
    env = {**os.environ}

    def start(supervisor: Supervisor) -> str:
        made = start_sandbox(supervisor, tmp_path, env, ready_seconds=_READY_SECONDS, keep=True)
        return str(made["base_url"])

    return start


def captures(base_url: str) -> list[dict]:
    try:
        return httpx.get(f"{base_url}/_control/paypal/captures", timeout=30).json()
    except httpx.HTTPError:
        return []


def test_sandbox_keeps_port_and_payments_when_killed_or_started_again(begin, tmp_path):
    # Given a payment
    asked = {"organization_id": "org_a", "value": "10.00", "deliver": False}
    with Supervisor(tmp_path / "logs") as supervisor:
        base_url = begin(supervisor)
        paid = httpx.post(f"{base_url}/_control/paypal/captures", json=asked, timeout=30).json()
        # When the process is killed / Then it answers at the same address again
        supervisor.kill("sandbox")
        assert wait_until(lambda: supervisor.restarts("sandbox") == 1, limit_seconds=30)
        assert wait_until(lambda: captures(base_url) != [], limit_seconds=_READY_SECONDS)
        assert [one["id"] for one in captures(base_url)] == [paid["id"]]
    # When another process has the port at the next start / Then another one is used, and kept
    with socket.socket() as other, Supervisor(tmp_path / "logs") as supervisor:
        other.bind(("127.0.0.1", int(base_url.rpartition(":")[2])))
        other.listen()
        moved = begin(supervisor)
        assert moved != base_url
        assert sandbox_info(tmp_path)["base_url"] == moved
        assert [one["id"] for one in captures(moved)] == [paid["id"]]
    assert (tmp_path / "sandbox" / "port").read_text() == moved.rpartition(":")[2]


def test_start_names_the_log_that_explains_why_the_sandbox_failed(begin, tmp_path):
    # Given a damaged file
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "state.db").write_bytes(b"not a database " * 400)
    # When it starts / Then the error names the log, which names the file
    log = tmp_path / "logs" / "sandbox.log"
    with (
        Supervisor(tmp_path / "logs") as supervisor,
        pytest.raises(ProcessNotReady, match=f"{log} says why"),
    ):
        begin(supervisor)
    assert "state.db: file is not a database; delete this file" in log.read_text()
