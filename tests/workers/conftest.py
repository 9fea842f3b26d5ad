"""Processes for tests of workers and relays, on the test's own database, Redis and sandbox."""

from __future__ import annotations

import os

import pytest

from cli import ROOT
from cli.sandbox import sandbox_env
from tests.workers.processes import Processes
from tests.world import make_organization


@pytest.fixture
def organization(world):
    """One that is nobody's customer anywhere, with an empty wallet."""
    return make_organization(world.database)


@pytest.fixture
def processes(urls, sandbox, tmp_path):
    """Starts the holdfast command, with short waits for lost requests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    made = Processes(
        {
            **kept,
            **sandbox_env(sandbox.info),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": urls.app_url,
            "REDIS_URL": urls.redis_url,
            "TWILIO_UNSURE_SECONDS": "3",
            "TWILIO_RECHECK_SECONDS": "0.2",
        },
        tmp_path,
    )
    yield made
    made.end_all()
