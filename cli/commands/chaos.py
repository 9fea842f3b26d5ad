"""The chaos runs, started as a process of their own: nothing of ours imports them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

_ROOT = Path(__file__).resolve().parent.parent.parent


def chaos(context: typer.Context) -> None:
    """Break everything under traffic, then count: [--seconds N] [--seed S] [--sabotage NAME]."""
    env = {**os.environ, "PYTHONPATH": str(_ROOT)}
    argv = [sys.executable, "-m", "chaos", *context.args]
    # In place of this process, so that whoever stops it stops the run, which ends in order.
    os.execve(sys.executable, argv, env)  # noqa: S606
