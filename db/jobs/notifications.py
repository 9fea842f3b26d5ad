"""Which bells are due: what the relay asks of the jobs' rows. Machinery time only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.jobs.staging import Staged
from db.waits import AGAIN_SECONDS_MAX, UNLEASED

#: By `urgent`; said literally, so that the index of urgent bells answers the first.
_OF_QUEUE = {True: " AND queue = 'safety'", False: " AND queue <> 'safety'"}

#: How long until a job is notified again, by how often it has been before.
_WAIT = "least(interval '15 seconds' * power(2, least(rings, 6)), interval '10 minutes')"
_WAIT_URGENT = (
    "CASE WHEN rings < 3 THEN interval '2 seconds' * power(2, rings) ELSE"
    " least(interval '15 seconds' * power(2, least(rings - 3, 6)), interval '10 minutes') END"
)


def ring_due(
    session: Session, limit: int, *, urgent: bool, queues: Sequence[str] | None = None
) -> list[Staged]:
    """Take up to `limit` jobs that are to be notified now, and set when each is notified next.

    `urgent` takes those of the safety queue, which wait behind no backlog; otherwise those of all
    other queues, or of `queues` only. The wait doubles with each notification, from 15 s to 10 min,
    so that a long backlog is not notified over and over. A safety job is notified again after 2, 4
    and 8 s first: the worker that took its message may be dead or stopped. Several relays may call
    this at once; each gets other rows.
    """
    rows = session.execute(
        text(
            "WITH due AS MATERIALIZED (SELECT id FROM jobs"  # noqa: S608  # constants of ours
            f" WHERE ring_at <= (SELECT clock_timestamp()){_OF_QUEUE[urgent]}"
            f"{'' if queues is None else ' AND queue = ANY (:queues)'}"
            " ORDER BY ring_at LIMIT :limit"
            " FOR NO KEY UPDATE SKIP LOCKED)"
            " UPDATE jobs SET rings = least(rings + 1, 1000),"
            f" ring_at = clock_timestamp() + {_WAIT_URGENT if urgent else _WAIT}"
            " FROM due WHERE jobs.id = due.id RETURNING jobs.id, jobs.name, jobs.queue"
        ),
        {"limit": limit} if queues is None else {"limit": limit, "queues": list(queues)},
    )
    return [Staged(row.id, row.name, row.queue) for row in rows]


def unring(session: Session, job_ids: list[str]) -> None:
    """This function will make bells that did not get through ring again in a second.

    A row that is locked is in a worker's hands already, and is not waited for.
    """
    session.execute(
        text(
            "WITH unheard AS MATERIALIZED (SELECT id FROM jobs WHERE id = ANY (:ids)"
            " AND ring_at IS NOT NULL AND lease_until IS NULL FOR NO KEY UPDATE SKIP LOCKED)"
            " UPDATE jobs SET rings = greatest(rings - 1, 0),"
            " ring_at = clock_timestamp() + interval '1 second'"
            " FROM unheard WHERE jobs.id = unheard.id"
        ),
        {"ids": job_ids},
    )


def ring_all_again(session: Session, limit: int, *, urgent: bool) -> int:
    """This function will make up to `limit` bells that were rung and not answered due now.

    Gives how many; fewer than `limit` means that none is left. `urgent`: as with ring_due.

    For an emptied Redis: what waits for its own time or is in a worker's hands (leased, or locked
    by a run that may take longer than a lock is waited for) stays as it is.
    """
    rows: Any = session.execute(
        text(
            # Only bells still to come: what is due already is rung by itself, and each batch would
            # have to step over all those before it.
            "WITH unheard AS MATERIALIZED (SELECT id FROM jobs"  # noqa: S608  # as above
            " WHERE rings > 0 AND ring_at > (SELECT clock_timestamp())"
            " AND (lease_until IS NULL OR lease_until <= clock_timestamp())"
            f"{_OF_QUEUE[urgent]} LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)"
            " UPDATE jobs SET ring_at = clock_timestamp(), rings = 0"
            " FROM unheard WHERE jobs.id = unheard.id"
        ),
        {"limit": limit},
    )
    return int(rows.rowcount)


def ring_set_back(session: Session) -> None:
    """Have jobs notified now whose notification is further ahead than any can be meant.

    The clock was set back, and no process noticed. A job that was staged to be due at once, at an
    instant later than now, becomes due as well: it would wait for as long as the step. A job that
    was staged for later stays as it is.
    """
    session.execute(
        text(
            "WITH set_back AS MATERIALIZED (SELECT id FROM jobs"  # noqa: S608  # as above
            " WHERE ring_at > (SELECT clock_timestamp()) + make_interval(secs => :longest)"
            " AND (attempt > 0 OR due_at <= clock_timestamp()"
            " OR (staged_at > clock_timestamp() AND due_at <= staged_at + interval '1 second'))"
            f" AND {UNLEASED} FOR NO KEY UPDATE SKIP LOCKED)"
            " UPDATE jobs SET ring_at = clock_timestamp(),"
            " due_at = CASE attempt WHEN 0 THEN least(due_at, clock_timestamp()) ELSE due_at END"
            " FROM set_back WHERE jobs.id = set_back.id"
        ),
        {"longest": AGAIN_SECONDS_MAX},
    )
