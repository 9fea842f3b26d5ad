"""Workers: run one, and list the processes that run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.enums import Queue
from cli.commands.serve import serve_worker
from cli.options import Json

app = typer.Typer(help="Run a worker, or list the processes that run.")


@app.callback(invoke_without_command=True)
def worker(
    context: typer.Context,
    queue: Annotated[
        list[Queue] | None, typer.Option("--queue", help="A queue to work on; repeatable.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Jobs at once.")] = 8,
) -> None:
    """Run a worker for the given queues. `worker list` shows the running processes."""
    if context.invoked_subcommand is not None:
        return
    if not queue:
        raise typer.BadParameter("name at least one queue", param_hint="--queue")
    serve_worker(set(queue), threads)


@app.command("list")
def list_workers(as_json: Json = False) -> None:
    """List every ingress, worker and relay that ran within the last hour.

    A process without a heartbeat for 10 seconds is silent: dead, stopped or cut off.
    """
    # Imported here, because a worker needs none of these modules and must start quickly.
    from cli.commands.output import show
    from cli.commands.shared import in_transaction
    from db.engine import clock
    from db.processes import list_processes

    def read(session: Session, _now: datetime) -> list[dict[str, Any]]:
        now = clock(session)
        return [
            {
                "process": process.name,
                "kind": process.kind,
                "queues": list(process.queues),
                "state": "live" if process.live else "silent",
                "started_at": process.started_at,
                "seen_at": process.seen_at,
                "silent_seconds": round((now - process.seen_at).total_seconds(), 1),
                "redis_away_since": process.redis_away_since,
            }
            for process in list_processes(session)
        ]

    show(in_transaction(read), as_json, "processes")
