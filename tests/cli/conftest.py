"""The holdfast command as it is called, on the test's own servers, and whom it is asked about."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.support.world import make_organization


@pytest.fixture
def organization_id(database):
    """An organization with 5.00 USD."""
    return make_organization(database, micros=5_000_000)


@pytest.fixture
def run(urls, monkeypatch):
    """Runs the command with the test's servers, and answers what it asks.

    Gives exit status, output and error output.
    """
    monkeypatch.setenv("DATABASE_URL", urls.app_url)
    monkeypatch.setenv("DATABASE_OWNER_URL", urls.owner_url)
    monkeypatch.setenv("REDIS_URL", urls.redis_url)

    def invoke(*arguments: str, answer: str | None = None):
        done = CliRunner().invoke(app, list(arguments), input=answer)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return invoke
