"""Print typed rows, as JSON or as text, so that both show the same values.

A row maps snake_case keys to typed values. Keys end in their unit (`_micros`, `_seconds`, `_ms`),
and an amount has its currency beside it. `cli.commands.tables` formats the same rows for people.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import typer
from rich.console import Console

from cli.commands import tables

Row = Mapping[str, Any]


def show(
    data: Row | Sequence[Row], as_json: bool, title: str = "", *, columns: Sequence[str] = ()
) -> None:
    """Print an object or a list of objects. `columns` limits a table, never the JSON."""
    if as_json:
        sys.stdout.write(json_text(data) + "\n")
    elif sys.stdout.isatty():
        tables.draw(data, title, Console(), columns)
    else:
        sys.stdout.write(tables.plain(data, title, columns))


def show_page(
    rows: Sequence[Row],
    cursor: str | int | None,
    as_json: bool,
    title: str,
    *,
    columns: Sequence[str] = (),
) -> None:
    """Print one page of a list; name the next page's cursor on standard error."""
    show(rows, as_json, title, columns=columns)
    if cursor is not None:
        typer.echo(f"more: --after {cursor}", err=True)


def print_result(line: str, data: Row, as_json: bool) -> None:
    """Print what was done, as one line or as one object."""
    if as_json:
        show(data, True)
    else:
        typer.echo(line)


def json_text(data: Any, *, indent: int | None = 2) -> str:
    """Return data as JSON: instants in ISO 8601 with time zone, no text as null."""
    return json.dumps(_json_value(data), indent=indent)


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return None if value == "" else value
