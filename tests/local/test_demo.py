"""The demo, as a person runs it: every check passes, and nothing is left running."""

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
    """Roles belong to a whole server: on one that we share, the demo gives holdfast_app another
    password, which the tests after it would not know."""
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
def test_the_demo_passes_and_leaves_nothing_running(same_login, story, checks):
    # Given a state folder of its own, and the servers that the environment names, if it does
    with server_folder() as folder:
        state = folder / "state"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_STATE": str(state)}

        # When it is run as data
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "demo", story, "--json"],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

        # Then it says that every check passed
        assert done.stdout, done.stderr[-4000:]
        told = json.loads(done.stdout)
        failed = [
            (scene["title"], check)
            for scene in told["scenes"]
            for check in scene["checks"]
            if not check["ok"]
        ]
        assert failed == []
        assert (done.returncode, told["failed"]) == (0, 0)
        assert told["passed"] > checks
        assert str(state) not in _command_lines()


def _command_lines() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
