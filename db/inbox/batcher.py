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
_BATCH_EVENTS_MAX = 64
#: Largest number of events that may wait in one process. Further ones are refused as unavailable,
#: and the provider sends them again.
_WAITING_EVENTS_MAX = 2_000
#: Seconds that storing one batch may take. After that, the connection counts as lost.
_STATEMENT_SECONDS_MAX = 6.0
#: Errors that a single event can cause: text that cannot be stored, or a violated constraint.
_EVENT_ERRORS = (psycopg.DataError, psycopg.IntegrityError, UnicodeError)


class Verdict(StrEnum):
    NEW = "new"
    DUPLICATE = "duplicate"
    DIFFERS = "differs"


class InboxUnavailable(Exception):
    """The event may not be stored, so its sender has to send it again."""


class VerifiedEvent(NamedTuple):
    """A verified webhook on its way into the inbox."""

    source: str
    external_id: str
    transmission_id: str | None
    event_type: str
    body: bytes
    correlation_id: str
    #: None if Holdfast does not use events of this type. The inbox stores them as ignored, without
    #: a job.
    queue: Queue | None


#: An event, and the future on which its caller waits for the verdict.
_WaitingEvent = tuple[VerifiedEvent, asyncio.Future[Verdict]]

_RECEIVE_EVENTS_SQL = (
    "SELECT inbox_receive(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[],"
    " %s::text[], %s::text[], %s::text[])"
)


class InboxBatcher:
    """Stores verified events, with one task and one connection per process.

    `after_commit` receives the jobs that were staged for new events.
    """

    def __init__(
        self,
        database_url: str,
        after_commit: Callable[[list[Staged]], None],
        *,
        longest_seconds: float = _STATEMENT_SECONDS_MAX,
    ) -> None:
        self._database_url = driver_url(database_url)
        self._watchdog = Watchdog(longest_seconds)
        self._after_commit = after_commit
        self._waiting: deque[_WaitingEvent] = deque()
        self._event_arrived = asyncio.Event()
        self._connection: psycopg.AsyncConnection | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the task. It connects to the database when the first event arrives."""
        self._task = asyncio.create_task(self._run(), name="inbox")

    async def stop(self) -> None:
        """End the task and close the connection.

        Callers whose event is not known to be stored get InboxUnavailable.
        """
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task = None
        _refuse_events(self._waiting, InboxUnavailable("stopping"))
        self._waiting.clear()
        await self._close_connection()

    async def receive(self, event: VerifiedEvent) -> Verdict:
        """Store the event, stage its job, and return the verdict after the commit.

        The same external id with the same body is DUPLICATE and stages no job. If the body differs,
        or if the transmission id belongs to another event, the verdict is DIFFERS. Raises:
        InboxUnavailable if the event is not known to be stored.
        """
        if self._task is None:
            raise InboxUnavailable("not started, or stopped")
        if len(self._waiting) >= _WAITING_EVENTS_MAX:
            raise InboxUnavailable("too many events waiting")
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, answer))
        self._event_arrived.set()
        return await answer

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._event_arrived.clear()
                await self._event_arrived.wait()
            waiting = self._waiting
            batch = [waiting.popleft() for _ in range(min(len(waiting), _BATCH_EVENTS_MAX))]
            try:
                await self._store_batch(batch)
            except BaseException as error:
                _refuse_events(batch, error)
                if not isinstance(error, Exception):
                    raise
                log.error("inbox_batch_failed", size=len(batch), error=type(error).__name__)

    async def _store_batch(self, batch: list[_WaitingEvent]) -> None:
        events = [event for event, _ in batch]
        try:
            verdicts = await self._insert_events(events)
        except _EVENT_ERRORS:
            # One bad event must not fail the others, so each is stored in a statement of its own.
            if len(batch) == 1:
                raise
            for waiting in batch:
                try:
                    await self._store_batch([waiting])
                except _EVENT_ERRORS as error:
                    _refuse_events([waiting], error)
            return
        for (_, answer), verdict in zip(batch, verdicts, strict=True):
            if not answer.done():
                answer.set_result(verdict)

    async def _insert_events(self, events: list[VerifiedEvent]) -> list[Verdict]:
        ids = new_ids("evt", len(events))
        jobs = new_ids("job", len(events))
        connection = await self._open_connection()
        try:
            with self._watchdog.watching(connection):
                cursor = await connection.execute(
                    _RECEIVE_EVENTS_SQL,
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
        except _EVENT_ERRORS:
            raise
        except BaseException:
            # If the connection was lost during the commit, the outcome is unknown for all events.
            # Close this connection. If the server is read-only, a failover has replaced the server,
            # and a new connection may reach the new one.
            await self._close_connection()
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

    async def _open_connection(self) -> psycopg.AsyncConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._database_url,
                autocommit=True,
                connect_timeout=2,
                prepare_threshold=None,
                application_name="holdfast inbox",
            )
        return self._connection

    async def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


def _log_received(events: list[VerifiedEvent], verdicts: list[Verdict]) -> None:
    """Log all events of a batch in one line.

    A separate line for each event would cost as much as the verification of the event.
    """
    log.info(
        "webhooks_received",
        events=[
            f"{event.correlation_id} {event.source} {event.event_type} {event.external_id}"
            f" {verdict}"
            for event, verdict in zip(events, verdicts, strict=True)
        ],
    )


def _bytea_array(bodies: Iterable[bytes]) -> str:
    return '{"\\\\x' + '","\\\\x'.join([body.hex() for body in bodies]) + '"}'


def _refuse_events(batch: Iterable[_WaitingEvent], error: BaseException) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(InboxUnavailable(type(error).__name__))
