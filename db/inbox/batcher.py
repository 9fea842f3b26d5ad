"""Store verified webhooks. Concurrent requests share one statement and one commit.

A caller gets its verdict only after the commit. If the outcome of the commit is unknown, every
caller of the batch gets an error, so that the providers send the events again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

import psycopg

from base.enums import Queue
from base.ids import new_ids
from base.log import get_logger
from db.address import driver_url
from db.connection import text_array
from db.jobs.staging import Staged
from db.watchdog import Watchdog

log = get_logger(__name__)

#: Largest number of events that one statement stores.
_BATCH_MAX = 64
#: Largest number of events that may wait in one process. Further ones are refused as unavailable,
#: and the provider sends them again.
_WAITING_MAX = 2_000
#: Seconds that the statement may take. After that the connection counts as lost.
_LONGEST_SECONDS = 6.0
#: Errors that a single event can cause: text that cannot be stored, or a violated constraint.
_BAD_ROW = (psycopg.DataError, psycopg.IntegrityError, UnicodeError)


class Verdict(StrEnum):
    NEW = "new"
    DUPLICATE = "duplicate"
    DIFFERS = "differs"


class InboxUnavailable(Exception):
    """The event may not be stored. Its sender has to send it again."""


class Received(NamedTuple):
    """A verified webhook on its way into the inbox."""

    source: str
    external_id: str
    transmission_id: str | None
    event_type: str
    body: bytes
    correlation_id: str
    #: None if it concerns nothing: it is stored as ignored, without a job.
    queue: Queue | None


#: An event, and the future on which its caller waits for the verdict.
_Waiting = tuple[Received, asyncio.Future[Verdict]]

_RECEIVE = (
    "SELECT inbox_receive(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[],"
    " %s::text[], %s::text[], %s::text[])"
)


class InboxBatcher:
    """The writer of verified events, with one task and one connection per process.

    `after_commit` receives the jobs that were staged for new events.
    """

    def __init__(
        self,
        database_url: str,
        after_commit: Callable[[list[Staged]], None],
        *,
        longest_seconds: float = _LONGEST_SECONDS,
    ) -> None:
        self._url = driver_url(database_url)
        self._watchdog = Watchdog(longest_seconds)
        self._after_commit = after_commit
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._connection: psycopg.AsyncConnection | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the task. It connects to the database when the first event arrives."""
        self._task = asyncio.create_task(self._run(), name="inbox")

    async def stop(self) -> None:
        """End the task and close the connection.

        Callers whose event is not known to be stored get InboxUnavailable, so that none waits on.
        """
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task = None
        _refuse(self._waiting, InboxUnavailable("stopping"))
        self._waiting.clear()
        await self._disconnect()

    async def receive(self, event: Received) -> Verdict:
        """Store the event, stage its job, and return the verdict after the commit.

        The same external id with the same body is DUPLICATE and stages no job. If the body differs,
        or if the transmission id belongs to another event, the verdict is DIFFERS. Raises:
        InboxUnavailable if the event is not known to be stored.
        """
        if self._task is None:
            raise InboxUnavailable("not started, or stopped")
        if len(self._waiting) >= _WAITING_MAX:
            raise InboxUnavailable("too many events waiting")
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, answer))
        self._arrived.set()
        return await answer

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            waiting = self._waiting
            batch = [waiting.popleft() for _ in range(min(len(waiting), _BATCH_MAX))]
            try:
                await self._store(batch)
            except BaseException as error:
                _refuse(batch, error)
                if not isinstance(error, Exception):
                    raise
                log.error("inbox_batch_failed", size=len(batch), error=type(error).__name__)

    async def _store(self, batch: list[_Waiting]) -> None:
        events = [event for event, _ in batch]
        try:
            verdicts = await self._insert(events)
        except _BAD_ROW:
            # One bad event must not fail the others. Each is stored again in a separate statement.
            if len(batch) == 1:
                raise
            for one in batch:
                try:
                    await self._store([one])
                except _BAD_ROW as error:
                    _refuse([one], error)
            return
        for (_, answer), verdict in zip(batch, verdicts, strict=True):
            if not answer.done():
                answer.set_result(verdict)

    async def _insert(self, events: list[Received]) -> list[Verdict]:
        ids = new_ids("evt", len(events))
        jobs = new_ids("job", len(events))
        connection = await self._connected()
        try:
            with self._watchdog.watching(connection):
                cursor = await connection.execute(
                    _RECEIVE,
                    (
                        text_array(ids),
                        text_array(event.source for event in events),
                        text_array(event.external_id for event in events),
                        text_array(event.transmission_id for event in events),
                        text_array(event.event_type for event in events),
                        _bytea_array(event.body for event in events),
                        text_array(event.correlation_id for event in events),
                        text_array(jobs),
                        text_array(event.queue for event in events),
                    ),
                )
                row = await cursor.fetchone()
        except _BAD_ROW:
            raise
        except BaseException:
            # If the connection was lost during the commit, the outcome is unknown for all events.
            # The connection is not used again. If the server only reads, a failover has replaced
            # it, and a new connection may reach the new server.
            await self._disconnect()
            raise
        verdicts = [Verdict(value) for value in (row or ([],))[0]]
        self._after_commit(
            [
                Staged(job_id, "process_event", str(event.queue))
                for job_id, event, verdict in zip(jobs, events, verdicts, strict=True)
                if verdict is Verdict.NEW and event.queue is not None
            ]
        )
        _log_received(events, verdicts)
        return verdicts

    async def _connected(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=2,
                prepare_threshold=None,
                application_name="holdfast inbox",
            )
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


def _log_received(events: list[Received], verdicts: list[Verdict]) -> None:
    """Log one line for a batch.

    A line for each event would cost as much as the verification of the event.
    """
    log.info(
        "webhooks_received",
        events=[
            f"{one.correlation_id} {one.source} {one.event_type} {one.external_id} {verdict}"
            for one, verdict in zip(events, verdicts, strict=True)
        ],
    )


def _bytea_array(bodies: Iterable[bytes]) -> str:
    return '{"\\\\x' + '","\\\\x'.join([body.hex() for body in bodies]) + '"}'


def _refuse(batch: Iterable[_Waiting], error: BaseException) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(InboxUnavailable(type(error).__name__))
