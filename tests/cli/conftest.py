"""The holdfast command on the test's own servers, and an organization for it."""

from __future__ import annotations

import logging

import pytest
import structlog
from typer.testing import CliRunner

from cli.main import app
from tests.support.world import make_organization


@pytest.fixture(autouse=True)
def records_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    # The command's log handler writes to an error output that is closed by now.
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def organization_id(database):
    """An organization with 5.00 USD."""
    return make_organization(database, micros=5_000_000)


@pytest.fixture
def run(urls, monkeypatch):
    """A function that runs the command with the test's servers.

    It answers the command's question with `answer`. It returns exit status, output and error
    output.
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
