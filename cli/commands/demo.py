"""Run a demonstration."""

from __future__ import annotations

from typing import Annotated

import typer

from base.settings import load_settings
from cli.errors import clear_errors
from cli.options import Json
from local.demo import run_demo
from local.demo.stories import Story


def demo(
    story: Annotated[
        Story, typer.Argument(help="way: spending stopped and resumed. calls: calls ended in time.")
    ] = Story.WAY,
    as_json: Json = False,
) -> None:
    """Run a demonstration: start everything, send webhooks, and check each effect."""
    with clear_errors():
        raise typer.Exit(run_demo(load_settings(), story, as_json=as_json))
