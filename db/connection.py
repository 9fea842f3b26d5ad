"""A connection outside the pool, for statements that each are a transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

from db.address import driver_url

#: Seconds after which a silent network or server counts as a lost connection. This is longer than
#: a statement may take.
_SILENCE_SECONDS = 8

T = TypeVar("T")


class _Impatient(psycopg.Connection[Any]):
    """A connection that closes if the server does not respond in time.

    TCP timeouts do not detect every silent server. If the server behind a pooler vanishes, the
    pooler still acknowledges the packets.
    """

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        end = time.monotonic() + _SILENCE_SECONDS
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > end:
                    # The connection is closed before the error. If it were still open, the caller
                    # would treat the error as the server's own, after which nothing was committed.
                    self.close()
                    raise psycopg.OperationalError("the server says nothing")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result


def connect_alone(database_url: str, name: str) -> psycopg.Connection[Any]:
    """Open a connection in autocommit mode; its application name is `holdfast <name>`.

    Raises: psycopg.OperationalError if the connection is not open within 2 s.
    """
    return _Impatient.connect(
        driver_url(database_url),
        autocommit=True,
        connect_timeout=2,
        # A transaction pooler may pass each statement to another server connection, which does not
        # have the prepared statement.
        prepare_threshold=None,
        application_name=f"holdfast {name}",
        keepalives_idle=_SILENCE_SECONDS,
        # The limit below is checked only with each further probe, by default after 75 s.
        keepalives_interval=1,
        tcp_user_timeout=_SILENCE_SECONDS * 1000,
    )


def text_array(texts: Iterable[str | None]) -> str:
    """Format an array as a PostgreSQL literal, faster than the driver does."""
    return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in texts]) + "}"


def _quoted(text: str) -> str:
    # Most texts contain neither character, and the check is faster than two replacements.
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
