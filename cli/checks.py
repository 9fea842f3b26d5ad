"""Check style, types, layers and language, run the tests, and show every failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import typer

from local import ROOT

#: Title and arguments for Python of each check that comes before the tests.
_CHECKS: tuple[tuple[str, Sequence[str]], ...] = (
    ("ruff check", ("-m", "ruff", "check")),
    ("ruff format --check", ("-m", "ruff", "format", "--check")),
    ("mypy", ("-m", "mypy")),
    # Has no module to run with -m.
    (
        "lint-imports",
        ("-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-logo"),
    ),
    ("language", ("-m", "cli.language")),
)


def test(context: typer.Context) -> None:
    """Check style, types and layers, run the tests; further arguments go to pytest."""
    raise typer.Exit(run_tests(context.args))


def run_tests(pytest_args: list[str]) -> int:
    """Run every check, then pytest. Return 0 only if all of them passed.

    The arguments go to pytest alone, whose summary is the last line printed.
    """
    failed = [title for title, argv in _CHECKS if _run(title, argv) != 0]
    if failed:
        print(f"== failed before the tests: {', '.join(failed)}", flush=True)
    code = _run("pytest", ("-m", "pytest", *pytest_args))
    return code or int(bool(failed))


def _run(title: str, argv: Sequence[str]) -> int:
    print(f"== {title}", flush=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *argv], check=False, cwd=ROOT, env=env).returncode
