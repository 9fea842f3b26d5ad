"""List operator actions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from cli.commands.output import show_page
from cli.commands.shared import in_transaction, utc
from cli.options import Json
from domain.operator_queries import PAGE_MAX, list_actions

app = typer.Typer(no_args_is_help=True, help="List what operators did manually.")


@app.callback()
def actions() -> None:
    """List what operators did manually."""


@app.command("list")
def list_operator_actions(
    organization: Annotated[
        str | None, typer.Option("--org", help="Only on this organization and what it owns.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Only subjects that begin with this text; or a call's id.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Only by this operator: the exact name.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only from this instant (UTC) on.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Rows a page.")] = 50,
    after: Annotated[str | None, typer.Option(help="Cursor: last action id of a page.")] = None,
    as_json: Json = False,
) -> None:
    """List operator actions, newest first."""
    page = in_transaction(
        lambda session, _: list_actions(
            session,
            organization_id=organization,
            subject=subject,
            by=by,
            since=utc(since),
            after=after,
            limit=limit,
        )
    )
    cursor = page[-1].id if len(page) == limit else None
    show_page([asdict(action) for action in page], cursor, as_json, "operator actions")
