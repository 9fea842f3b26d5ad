"""The demo as a person runs it: every check passes and no process remains."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from db.logins import set_password
from local import ROOT
from tests.conftest import PASSWORD
from tests.support.servers import server_folder


@pytest.fixture
def same_login(servers, template):
    """The password of `holdfast_app`, restored after the test.

    Roles belong to a whole server. On a shared server the demo changes the role's password, and
    later tests could not connect.
    """
    yield
    set_password(servers.owner_url, "holdfast_app", PASSWORD)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("story", "checks"),
    [
        ("way", 70),
        pytest.param(
            "calls",
            40,
            marks=pytest.mark.skipif(
                bool(os.environ.get("DATABASE_URL")), reason="what it shows is no server's business"
            ),
        ),
    ],
)
def test_demo_passes_and_leaves_nothing_running(same_login, story, checks):
    # Given a state folder of its own, and the servers named by the environment, if there are any
    with server_folder() as folder:
        state = folder / "state"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_STATE": str(state)}

        # When it is run with --json
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "demo", story, "--json"],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

        # Then it reports that every check passed
        assert done.stdout, done.stderr[-4000:]
        printed = json.loads(done.stdout)
        failed = [
            (scene["title"], check)
            for scene in printed["scenes"]
            for check in scene["checks"]
            if not check["ok"]
        ]
        assert failed == []
        assert (done.returncode, printed["failed"]) == (0, 0)
        assert printed["passed"] > checks
        assert str(state) not in _command_lines()


def _command_lines() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
