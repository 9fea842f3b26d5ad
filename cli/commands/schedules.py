"""List the periodic jobs with their intervals and last results."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from cli.commands.output import show
from cli.commands.shared import in_transaction
from cli.options import Json
from db.jobs.search import find
from db.models import ScheduleRow
from domain.jobs.schedules import SCHEDULES

app = typer.Typer(no_args_is_help=True, help="Periodic work.")


@app.callback()
def periodic() -> None:
    """List the periodic jobs that the relays stage."""


@app.command("list")
def list_schedules(as_json: Json = False) -> None:
    """List periodic jobs: interval, next and last time, and the last job's state."""

    def read(session: Session, _now: datetime) -> list[dict[str, Any]]:
        known = {one.name: one for one in SCHEDULES}
        return [
            {
                "schedule": row.name,
                "job": known[row.name].job.name if row.name in known else None,
                "interval_seconds": row.every_seconds,
                "next_at": row.next_at,
                "last_at": row.last_at,
                "last_job_id": row.last_job_id,
                "last_job_state": _state_of(session, row.last_job_id),
            }
            for row in session.scalars(select(ScheduleRow).order_by(ScheduleRow.name))
        ]

    show(in_transaction(read), as_json, "schedules")


def _state_of(session: Session, job_id: str | None) -> str | None:
    if job_id is None:
        return None
    found = find(session, job_id)
    return "pruned" if found is None else found.state
