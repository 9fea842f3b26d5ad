"""Refused deliveries: counted, and kept in a short capped list, without their body.

Gathered in memory and written once a second, so that a flood of forgeries costs one statement.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from datetime import datetime

import psycopg

from base.clock import utc_now
from base.log import get_logger
from db.address import driver_url

log = get_logger(__name__)

#: Refusals listed in the database at most; older ones are dropped.
LIST_MAX = 1_000
#: Refusals listed of one second at most; all of them are counted.
_PER_SECOND_MAX = 100
_FLUSH_SECONDS = 1.0
#: Seconds that one flush may take: a server that says nothing ends none by itself.
_WRITE_SECONDS = 5.0


class RefusalLog:
    """What this process refused, on its way to the database."""

    def __init__(self, database_url: str) -> None:
        self._url = driver_url(database_url)
        self._listed: deque[tuple[str, int, str, datetime]] = deque(maxlen=_PER_SECOND_MAX)
        self._counts: Counter[tuple[str, int]] = Counter()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[bool] | None = None

    def add(self, source: str, status: int, reason: str) -> None:
        """Count one refused delivery, and list it."""
        self._listed.append((source, status, reason[:200], utc_now()))
        self._counts[source, status] += 1
        log.warning("delivery refused", source=source, status=status, reason=reason)

    async def start(self) -> None:
        """Start to write once a second."""
        self._task = asyncio.create_task(self._run(), name="refusals")

    async def stop(self) -> None:
        """Write what is left, and end.

        A write that is on its way is not cut off: a connection that is being made cannot be closed.
        """
        self._stopping.set()
        answers = self._task is None or await self._task
        if answers:
            await self._flush()

    async def _run(self) -> bool:
        """Write until the stop. Return whether the database answered the last time."""
        answers = True
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _FLUSH_SECONDS)
            if not self._stopping.is_set():
                answers = await self._flush()
        return answers

    async def _flush(self) -> bool:
        """Write what was gathered. Return False if the database did not take it in time."""
        if not self._counts:
            return True
        listed, counts = list(self._listed), self._counts
        self._listed.clear()
        self._counts = Counter()
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._write(listed, counts)
        except BaseException as error:
            # Counted again with the next flush; the list is only a sample anyway.
            self._counts.update(counts)
            if not isinstance(error, psycopg.Error | TimeoutError):
                raise
            log.warning("refusals not written", error=type(error).__name__)
            return False
        return True

    async def _write(
        self, listed: list[tuple[str, int, str, datetime]], counts: Counter[tuple[str, int]]
    ) -> None:
        async with (
            await psycopg.AsyncConnection.connect(
                self._url, connect_timeout=2, prepare_threshold=None
            ) as connection,
            connection.cursor() as cursor,
        ):
            await cursor.executemany(
                "INSERT INTO refused_deliveries (source, status, reason, refused_at)"
                " VALUES (%s, %s, %s, %s)",
                listed,
            )
            await cursor.executemany(
                "INSERT INTO refusal_counts AS c (source, status, count) VALUES (%s, %s, %s)"
                " ON CONFLICT (source, status) DO UPDATE SET count = c.count + excluded.count",
                [(source, status, count) for (source, status), count in sorted(counts.items())],
            )
            await cursor.execute(
                "DELETE FROM refused_deliveries WHERE id <= (SELECT max(id) FROM"
                " refused_deliveries) - %s",
                (LIST_MAX,),
            )
