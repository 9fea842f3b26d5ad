"""The command `wallet history`: a page of entries, or an export of all of them."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Any

import typer

from cli.commands.output import json_text, show_page
from cli.commands.shared import in_transaction, open_database, utc
from cli.errors import Failure, clear_errors
from cli.options import Json, Org
from domain.wallet import queries as wallet_queries

#: Columns of an export, in order.
_COLUMNS = tuple(field.name for field in fields(wallet_queries.EntryView))
#: Columns of the table.
_TABLE_COLUMNS = (
    *("entry_no", "created_at", "kind", "direction", "amount_micros", "balance_after_micros"),
    *("counter_account", "note"),
)

Format = Annotated[str, typer.Option("--format", help="table, csv or jsonl.")]


def history(
    organization_id: Org,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind; repeatable.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From this instant (UTC) on.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this instant (UTC).")] = None,
    after: Annotated[int | None, typer.Option(help="Cursor: last entry number of a page.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=wallet_queries.PAGE_MAX, help="Rows a page.")
    ] = 50,
    output: Format = "table",
    as_json: Json = False,
) -> None:
    """Show entries, newest first. csv and jsonl export all matching entries."""
    filters: dict[str, Any] = {
        "kinds": tuple(kind or ()),
        "since": utc(since),
        "until": utc(until),
    }
    if output not in ("table", "csv", "jsonl"):
        with clear_errors():
            raise Failure(f"--format is table, csv or jsonl, not {output!r}")
    if output == "table":
        page = in_transaction(
            lambda session, _: wallet_queries.history(
                session, organization_id, after=after, limit=limit, **filters
            )
        )
        rows = [asdict(entry) for entry in page]
        cursor = page[-1].entry_no if len(page) == limit else None
        title = f"history of {organization_id}"
        show_page(rows, cursor, as_json, title, columns=_TABLE_COLUMNS)
        return
    with clear_errors():
        if as_json:
            raise Failure("--json prints one page; it cannot be combined with an export's --format")
        if after is not None:
            raise Failure("--after works only with --format table; an export has no pages")
    _export(organization_id, output, filters)


def _export(organization_id: str, output: str, filters: dict[str, Any]) -> None:
    """Write the export in pages, so that a slow reader keeps no transaction open."""
    writer = csv.DictWriter(sys.stdout, fieldnames=_COLUMNS)
    if output == "csv":
        writer.writeheader()
    cursor: int | None = None
    with open_database() as do:
        while True:
            after = cursor
            page = do(
                lambda session, _: wallet_queries.history(
                    session,
                    organization_id,
                    after=after,  # noqa: B023  # called before `after` changes
                    limit=wallet_queries.PAGE_MAX,
                    **filters,
                )
            )
            for row in map(asdict, page):
                if output == "csv":
                    writer.writerow(row | {"created_at": row["created_at"].isoformat()})
                else:
                    sys.stdout.write(json_text(row, indent=None) + "\n")
            if len(page) < wallet_queries.PAGE_MAX:
                return
            cursor = page[-1].entry_no
