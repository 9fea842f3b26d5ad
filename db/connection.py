"""A connection of one's own beside the pool, for statements that are each a transaction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

from db.address import driver_url

#: Seconds after which a silent network, or server, counts as a lost connection: longer than a
#: statement may take.
_SILENCE_SECONDS = 8

T = TypeVar("T")


class _Impatient(psycopg.Connection[Any]):
    """Leaves a server that does not answer, also where the network takes what it is sent for it: a
    pooler's does, whose own server has vanished."""

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        end = time.monotonic() + _SILENCE_SECONDS
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > end:
                    # Closed first: whoever is told so must not take it for the server's own no.
                    self.close()
                    raise psycopg.OperationalError("the server says nothing")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result


def connect_alone(database_url: str, name: str) -> psycopg.Connection[Any]:
    """This function will open a connection in autocommit that others can tell by its name.

    Raises: psycopg.OperationalError when there is none within 2 s.
    """
    return _Impatient.connect(
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
