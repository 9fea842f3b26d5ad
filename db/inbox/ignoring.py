"""Jobs of events that concern nobody, many at once: read as they are, then ended by one statement.

Nothing is locked between the two. The second looks again at all that the first saw, and leaves
alone whatever is locked, claimed, failed or handled by then: the usual way decides about those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from db.connection import connect_alone, text_array
from db.jobs.lifecycle import RINGS_BEFORE_COMMITTED_CLAIM

#: A job whose first attempt nobody has begun. One that failed, or was rung again and again, may be
#: what kills its workers: it is run by itself, with its attempts counted.
_FRESH = (
    "j.done_at IS NULL AND j.dead_at IS NULL AND j.due_at <= clock_timestamp()"
    " AND j.lease_until IS NULL AND j.failures = 0"
    f" AND j.rings <= {RINGS_BEFORE_COMMITTED_CLAIM}"
)
_READ = f"""
    SELECT j.id, i.id, i.source, i.event_type, i.body, clock_timestamp()
    FROM unnest(%s::text[]) AS rung (id) JOIN jobs j ON j.id = rung.id
    JOIN inbox i ON i.id = j.kwargs ->> 'event_id'
    WHERE j.name = 'process_event' AND {_FRESH} AND i.handled_at IS NULL
"""  # noqa: S608
#: Job first, then event, as everywhere; nothing is waited for, so that no order can deadlock.
_END = f"""
    WITH job AS MATERIALIZED (
        SELECT j.id, j.attempt + 1 AS attempt, read.event_id, read.at
        FROM unnest(%(jobs)s::text[], %(events)s::text[], %(read_at)s::timestamptz[])
            AS read (job_id, event_id, at) JOIN jobs j ON j.id = read.job_id
        WHERE {_FRESH} FOR NO KEY UPDATE OF j SKIP LOCKED
    ), owed AS MATERIALIZED (
        SELECT job.* FROM job JOIN inbox i ON i.id = job.event_id
        WHERE i.handled_at IS NULL FOR NO KEY UPDATE OF i SKIP LOCKED
    ), marked AS (
        UPDATE inbox i SET handled_at = owed.at, outcome = 'ignored'
        FROM owed WHERE i.id = owed.event_id
    ), ended AS (
        UPDATE jobs j SET done_at = clock_timestamp(), outcome = 'done', ring_at = NULL,
            attempt = owed.attempt, worker = %(worker)s
        FROM owed WHERE j.id = owed.id RETURNING j.id, j.attempt, owed.at, j.done_at
    )
    INSERT INTO job_attempts (job_id, attempt, worker, started_at, ended_at, outcome)
    SELECT id, attempt, %(worker)s, at, done_at, 'done' FROM ended RETURNING job_id
"""  # noqa: S608


class Owed(NamedTuple):
    """An event that waits, as it was read without a lock, and the job that owes its handling."""

    job_id: str
    event_id: str
    source: str
    event_type: str
    body: bytes
    read_at: datetime


class IgnoredEvents:
    """One connection, made when first needed, and made again when it was lost."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection[Any] | None = None

    def read(self, job_ids: Sequence[str]) -> list[Owed]:
        """This function will read the events of the jobs that nobody has begun; locks nothing.

        Raises: psycopg.Error when the database does not answer.
        """
        return [Owed(*row) for row in self._ask(_READ, (text_array(job_ids),))]

    def end(self, events: Sequence[Owed], worker: str) -> set[str]:
        """This function will mark the events ignored and finish their jobs, in one commit.

        Gives the ids of the jobs it finished. Replay: none. Raises: psycopg.Error, after which it
        may have happened or not.
        """
        rows = self._ask(
            _END,
            {
                "jobs": text_array([event.job_id for event in events]),
                "events": text_array([event.event_id for event in events]),
                "read_at": text_array([event.read_at.isoformat() for event in events]),
                "worker": worker,
            },
        )
        return {job_id for (job_id,) in rows}

    def close(self) -> None:
        """This function will close the connection. Replay: nothing happens."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def _ask(self, statement: str, values: Any) -> list[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect_alone(self._url, "sieve")
        try:
            return self._connection.execute(statement, values).fetchall()
        except psycopg.errors.ReadOnlySqlTransaction:
            # Another server was put in its place: the next connection may lead to that one.
            self.close()
            raise
