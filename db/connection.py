"""A connection of one's own beside the pool, for statements that are each a transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from db.address import driver_url

#: Seconds after which a silent network counts as a lost connection.
_SILENCE_SECONDS = 8


def connect_alone(database_url: str, name: str) -> psycopg.Connection[Any]:
    """This function will open a connection in autocommit that others can tell by its name.

    Raises: psycopg.OperationalError when there is none within 2 s.
    """
    return psycopg.connect(
        driver_url(database_url),
        autocommit=True,
        connect_timeout=2,
        # A transaction pooler may hand every statement to another server connection.
        prepare_threshold=None,
        application_name=f"holdfast {name}",
        keepalives_idle=_SILENCE_SECONDS,
        # The limit below is looked at with each further probe only, by default after 75 s.
        keepalives_interval=1,
        tcp_user_timeout=_SILENCE_SECONDS * 1000,
    )


def text_array(texts: Iterable[str | None]) -> str:
    """This function will write an array as PostgreSQL reads it; the driver's own way is slower."""
    return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in texts]) + "}"


def _quoted(text: str) -> str:
    # Most have none of either: looking is quicker than replacing.
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
