"""List and clear alerts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cli.commands.output import show, show_page
from cli.commands.shared import acting_operator, in_transaction
from cli.options import By, Json, Why
from domain.alerts import alerts
from domain.alerts import queries as alert_queries

app = typer.Typer(no_args_is_help=True, help="List and clear alerts.")


@app.command("list")
def list_alerts(
    organization_id: Annotated[
        str | None, typer.Option("--org", help="Only this organization's alerts.")
    ] = None,
    kind: Annotated[alerts.AlertKind | None, typer.Option(help="Only this kind.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Include cleared alerts.")] = False,
    after: Annotated[int | None, typer.Option(help="Cursor: last alert number of a page.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=alert_queries.PAGE_MAX, help="Rows a page.")
    ] = 100,
    as_json: Json = False,
) -> None:
    """List active alerts, newest first."""
    page = in_transaction(
        lambda session, _: alert_queries.list_alerts(
            session,
            organization_id=organization_id,
            kind=kind,
            cleared=everything,
            after=after,
            limit=limit,
        )
    )
    cursor = page[-1].alert_id if len(page) == limit else None
    show_page([asdict(one) for one in page], cursor, as_json, "alerts")


@app.command("clear")
def clear_alert(
    alert_id: Annotated[int, typer.Argument(help="The alert's number in the list.", min=1)],
    why: Why,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Clear an alert that was dealt with. It is raised again if its cause recurs."""
    operator = acting_operator(by, why)
    cleared = in_transaction(
        lambda session, now: alert_queries.alert_view(
            alerts.clear_manually(session, alert_id, operator=operator, now=now)
        )
    )
    show(asdict(cleared), as_json)
