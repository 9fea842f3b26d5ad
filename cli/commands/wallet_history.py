"""The command `wallet history`: a page of entries, or an export of all of them."""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from base.money import text_from_micros
from cli.commands.shared import acting, in_transaction, show, utc
from cli.errors import Failure, clear_errors
from cli.options import Org
from db.models import WalletEntry
from domain.wallet import queries as wallet_queries

#: Columns of an export, in order.
_COLUMNS = (
    "no",
    "at",
    "kind",
    "direction",
    "amount_micros",
    "balance_after_micros",
    "owed_after_micros",
    "counter_account",
    "key",
    "note",
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

        def read(session: Session, now: datetime) -> list[dict[str, Any]]:
            currency = wallet_queries.balance(session, organization_id, now).currency
            page = wallet_queries.history(
                session, organization_id, after=after, limit=limit, **filters
            )
            return [_line(entry, currency) for entry in page]

        rows = in_transaction(read)
        show(rows, False, f"history of {organization_id}")
        return
    if after is not None:
        with clear_errors():
            raise Failure("--after works only with --format table; an export has no pages")
    _export(organization_id, output, filters)


def _export(organization_id: str, output: str, filters: dict[str, Any]) -> None:
    """Write the export in pages, so that a slow reader keeps no transaction open."""
    writer = csv.DictWriter(sys.stdout, fieldnames=_COLUMNS)
    if output == "csv":
        writer.writeheader()
    cursor: int | None = None
    with acting() as do:
        while True:
            after = cursor
            page = do(
                lambda session, _: [
                    _entry(entry)
                    for entry in wallet_queries.history(
                        session,
                        organization_id,
                        after=after,  # noqa: B023  # called before the next turn
                        limit=wallet_queries.PAGE_MAX,
                        **filters,
                    )
                ]
            )
            for row in page:
                if output == "csv":
                    writer.writerow(row)
                else:
                    sys.stdout.write(json.dumps(row) + "\n")
            if len(page) < wallet_queries.PAGE_MAX:
                return
            cursor = page[-1]["no"]


def _entry(entry: WalletEntry) -> dict[str, Any]:
    return {
        "no": entry.entry_no,
        "at": entry.created_at.isoformat(),
        "kind": entry.kind,
        "direction": entry.direction,
        "amount_micros": entry.amount_micros,
        "balance_after_micros": entry.balance_after_micros,
        "owed_after_micros": entry.owed_after_micros,
        "counter_account": entry.counter_account,
        "key": entry.operation_key,
        "note": entry.note,
    }


def _line(entry: WalletEntry, currency: str) -> dict[str, Any]:
    """Return an entry as a table row: the amount with its sign, the purpose last."""
    sign = {"credit": "+", "debit": "-"}.get(entry.direction, "")
    return {
        "no": entry.entry_no,
        "at": entry.created_at,
        "kind": entry.kind,
        "amount": f"{sign}{text_from_micros(entry.amount_micros, currency)}" if sign else "",
        "balance": text_from_micros(entry.balance_after_micros, currency),
        "what for": entry.note or entry.counter_account,
    }
