"""Count refused deliveries, and list the newest ones without their bodies.

The ingress collects refusals in memory and writes them once a second, so that a flood of forgeries
causes only one short transaction a second.
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
from db.watchdog import Watchdog

log = get_logger(__name__)

#: Largest number of refusals in the database's list. Older ones are deleted.
LIST_MAX = 1_000
#: Largest number of refusals that one second adds to the list. Refusals above it are only counted.
_LISTED_PER_SECOND_MAX = 100
_FLUSH_SECONDS = 1.0
#: Seconds that one write may take. After that the connection counts as lost.
_WRITE_SECONDS_MAX = 5.0


class RefusalLog:
    """Collects this process's refused deliveries, and writes them to the database."""

    def __init__(self, database_url: str, *, longest_seconds: float = _WRITE_SECONDS_MAX) -> None:
        self._database_url = driver_url(database_url)
        self._watchdog = Watchdog(longest_seconds)
        self._listed: deque[tuple[str, int, str, datetime]] = deque(maxlen=_LISTED_PER_SECOND_MAX)
        self._counts: Counter[tuple[str, int]] = Counter()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[bool] | None = None

    def add(self, source: str, status: int, reason: str) -> None:
        """Count one refused delivery and add it to the list."""
        self._listed.append((source, status, reason[:200], utc_now()))
        self._counts[source, status] += 1
        log.warning("delivery_refused", source=source, status=status, reason=reason)

    async def start(self) -> None:
        """Start the task that writes once a second."""
        self._task = asyncio.create_task(self._run(), name="refusals")

    async def stop(self) -> None:
        """Write the remaining refusals and end the task.

        A write that has begun is awaited and not cancelled, because a connection that is still
        being opened cannot be closed. If the task's last write failed, the remaining refusals are
        lost.
        """
        self._stopping.set()
        is_written = self._task is None or await self._task
        if is_written:
            await self._flush()

    async def _run(self) -> bool:
        """Write once a second until the stop; return whether the last write succeeded."""
        is_written = True
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _FLUSH_SECONDS)
            if not self._stopping.is_set():
                is_written = await self._flush()
        return is_written

    async def _flush(self) -> bool:
        """Write the collected refusals; return False if the database did not store them."""
        if not self._counts:
            return True
        listed, counts = list(self._listed), self._counts
        self._listed.clear()
        self._counts = Counter()
        try:
            await self._write(listed, counts)
        except BaseException as error:
            # The next flush writes these counts again. The list is only a sample and may lose rows.
            self._counts.update(counts)
            if not isinstance(error, psycopg.Error):
                raise
            log.warning("refusals_not_written", error=type(error).__name__)
            return False
        return True

    async def _write(
        self, listed: list[tuple[str, int, str, datetime]], counts: Counter[tuple[str, int]]
    ) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._database_url, connect_timeout=2, prepare_threshold=None
        )
        # The watchdog also limits the commit at the end of the inner block.
        with self._watchdog.watching(connection):
            async with connection, connection.cursor() as cursor:
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
