"""Runs the chaos tests as a separate program, which no other module imports."""

from __future__ import annotations

import os
import sys

import typer

from local import ROOT


def chaos(context: typer.Context) -> None:
    """Inject faults under traffic, then count lost, doubled and drifted results.

    [--seconds N] [--seed S] [--sabotage NAME] [--rest-seconds N] [--json FILE] [--keep]
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "chaos", *context.args]
    # This process becomes the run, so that a signal to stop reaches the run, which ends in order.
    os.execve(sys.executable, argv, env)  # noqa: S606
