"""List the periodic jobs with their intervals and last results."""

from __future__ import annotations

from dataclasses import asdict

import typer

from cli.commands.output import show
from cli.commands.shared import in_transaction
from cli.options import Json
from domain.jobs.queries import list_schedules

app = typer.Typer(no_args_is_help=True, help="Periodic work.")


@app.callback()
def periodic() -> None:
    """List the periodic jobs that the relays stage."""


@app.command("list")
def list_periodic_jobs(as_json: Json = False) -> None:
    """List periodic jobs: interval, next and last time, and the last job's state."""

    rows = in_transaction(lambda session, _: list_schedules(session))
    show([asdict(one) for one in rows], as_json, "schedules")
