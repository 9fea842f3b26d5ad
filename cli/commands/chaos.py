"""The chaos runs, started as a process of their own: nothing of ours imports them."""

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
    # In place of this process, so that whoever stops it stops the run, which ends in order.
    os.execve(sys.executable, argv, env)  # noqa: S606
