"""Runs the benchmarks as a separate process, which no other module imports."""

from __future__ import annotations

import os
import subprocess
import sys

import typer

from local import ROOT


def bench(context: typer.Context) -> None:
    """Run the named benchmarks, or all, and compare each with its baseline.

    [NAME …] [--rounds N] [--seconds N] [--count N] [--json FILE]
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "benchmarks", *context.args]
    raise typer.Exit(subprocess.run(argv, check=False, env=env).returncode)
