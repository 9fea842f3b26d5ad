"""A connection outside the pool, for statements that each are a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from db.address import driver_url


def connect_alone(database_url: str, name: str) -> psycopg.Connection[Any]:
    """Open a connection in autocommit mode; its application name is `holdfast <name>`.

    Raises: psycopg.OperationalError if the connection is not open within 2 s.
    """
    return psycopg.connect(
        driver_url(database_url),
        autocommit=True,
        connect_timeout=2,
        # A transaction pooler may pass each statement to another server connection, which does not
        # have the prepared statement.
        prepare_threshold=None,
        application_name=f"holdfast {name}",
    )


def text_array(texts: Iterable[str | None]) -> str:
    """Format an array as a PostgreSQL literal, faster than the driver does."""
    return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in texts]) + "}"


def _quoted(text: str) -> str:
    # Most texts contain neither character, and the check is faster than two replacements.
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
