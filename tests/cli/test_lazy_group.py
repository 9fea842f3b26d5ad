"""Commands are imported when they are invoked, and listed without an import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli import __version__
from cli.main import COMMANDS, app
from local import ROOT

#: Modules that the help does not need.
HEAVY = ("sqlalchemy", "alembic", "httpx", "twilio", "dramatiq", "starlette")


def imported_by(*arguments: str) -> set[str]:
    """Run the command in its own process; return the heavy modules it imported."""
    code = (
        "import sys; from cli.main import app\n"
        f"try: app({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        f"print('imported', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_imports_nothing_heavy():
    assert imported_by("--help") == set()


def test_worker_imports_no_other_process(monkeypatch):
    # Given a worker that stops because it has no database
    monkeypatch.setenv("DATABASE_URL", "")
    assert imported_by("worker", "--queue", "safety") == {"sqlalchemy"}


@pytest.mark.parametrize("name", COMMANDS)
def test_listed_help_is_that_of_the_command(name):
    own = COMMANDS[name].load(name).help.split("\n\n")[0]
    assert " ".join(own.split()) == COMMANDS[name].help


def test_typo_suggests_a_command():
    done = CliRunner().invoke(app, ["walet"])
    assert done.exit_code == 2
    assert "'wallet'" in done.output


def test_version_is_that_of_the_package():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"{__version__}\n")
