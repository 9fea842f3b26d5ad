"""Show the running sandbox."""

from __future__ import annotations

import typer

from base.settings import load_settings
from cli.commands.output import show
from cli.errors import clear_errors
from cli.options import Json
from local.sandbox import sandbox_info
from local.stack import state_folder

app = typer.Typer(no_args_is_help=True, help="The providers' stand-ins.")


@app.callback()
def sandbox() -> None:
    """Make this a group, although it has one command."""


@app.command("info")
def info(as_json: Json = False) -> None:
    """Print the running sandbox's addresses, keys and webhook ids."""
    with clear_errors():
        found = sandbox_info(state_folder(load_settings()))
    show(found, as_json)
