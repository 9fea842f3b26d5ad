"""The relay's queries: which jobs a worker must be notified of, and when again.

Every instant here is the database's `clock_timestamp()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.jobs.staging import Staged
from db.waits import AGAIN_SECONDS_MAX, UNLEASED

#: SQL condition for each value of `urgent`. The queue is a literal, so that PostgreSQL can use the
#: partial index of safety jobs.
_QUEUE_CONDITIONS = {True: " AND queue = 'safety'", False: " AND queue <> 'safety'"}

#: SQL for the wait until a job's next notification, computed from the number of earlier ones.
_NEXT_WAIT = "least(interval '15 seconds' * power(2, least(rings, 6)), interval '10 minutes')"
_NEXT_WAIT_URGENT = (
    "CASE WHEN rings < 3 THEN interval '2 seconds' * power(2, rings) ELSE"
    " least(interval '15 seconds' * power(2, least(rings - 3, 6)), interval '10 minutes') END"
)
#: SQL for the wait until the next check of a job whose message still waits. This wait doubles, too.
#: If the message was lost after all, a later check finds that the queue's first message is younger.
_NEXT_CHECK_WAIT = (
    "least(greatest(clock_timestamp() - due_at, interval '2 seconds'), interval '2 minutes')"
)
#: SQL condition: the job's message still waits in its queue. Messages are first in, first out, and
#: ids have the order of staging. So the message of a job that is as young as the head's or younger
#: still waits, if one was sent: by a relay, or by the process that staged the job to run at once.
_MESSAGE_STILL_WAITS = (
    "((rings > 0 OR (attempt = 0 AND due_at <= staged_at + interval '1 second')) AND EXISTS ("
    "SELECT FROM unnest(CAST(:long AS text[]), CAST(:heads AS text[])) AS head (queue, job_id)"
    " WHERE head.queue = jobs.queue AND head.job_id <= jobs.id))"
)


def notify_due(
    session: Session,
    limit: int,
    *,
    urgent: bool,
    queues: Sequence[str] | None = None,
    heads: Mapping[str, str] = MappingProxyType({}),
) -> list[Staged]:
    """Take up to `limit` jobs whose notification is due, and schedule each one's next.

    With `urgent`, take jobs of the safety queue, which must not wait behind a backlog. Otherwise,
    take jobs of all other queues, or of `queues` only. A job's wait doubles with each notification,
    from 15 s to 10 min, so that a long backlog is not notified over and over.

    Workers are notified of a safety job again after 2, 4 and 8 s, because the worker that fetched
    the notification may be dead or stopped. Several relays may call this function at once. Each
    gets different rows.

    The oldest jobs come first. `heads` maps each queue in which many messages wait to the lowest
    job id of the instant of its first message's job. A job whose own message still waits in such a
    queue is not returned, because a second message would only be more work. The omitted
    notification is not counted.
    """
    rows = session.execute(
        text(
            f"WITH due AS MATERIALIZED (SELECT id, {_MESSAGE_STILL_WAITS} AS is_behind FROM jobs"  # noqa: S608
            f" WHERE ring_at <= (SELECT clock_timestamp()){_QUEUE_CONDITIONS[urgent]}"
            f"{'' if queues is None else ' AND queue = ANY (:queues)'}"
            " ORDER BY ring_at LIMIT :limit"
            " FOR NO KEY UPDATE SKIP LOCKED)"
            " UPDATE jobs SET rings = CASE WHEN is_behind THEN greatest(rings, 1)"
            " ELSE least(rings + 1, 1000) END, ring_at = clock_timestamp()"
            f" + CASE WHEN is_behind THEN {_NEXT_CHECK_WAIT}"
            f" ELSE {_NEXT_WAIT_URGENT if urgent else _NEXT_WAIT} END"
            " FROM due WHERE jobs.id = due.id RETURNING jobs.id, jobs.name, jobs.queue, is_behind"
        ),
        {
            "limit": limit,
            "long": list(heads),
            "heads": list(heads.values()),
            **({} if queues is None else {"queues": list(queues)}),
        },
    )
    due = sorted(row[:3] for row in rows if not row.is_behind)
    return [Staged(*job) for job in due]


def retry_notifications(session: Session, job_ids: list[str]) -> None:
    """Notify jobs again in one second after their notification did not reach Redis.

    Rows that are locked are skipped, because a worker already has these jobs.
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


def notify_all_again(session: Session, limit: int, *, urgent: bool) -> int:
    """Make up to `limit` jobs due for notification that were notified but not claimed.

    The relay calls this after Redis has lost its messages. Jobs that were never notified stay as
    they are, and so do jobs that a worker has leased or locked. Locked rows are skipped, because a
    run may last longer than a lock wait. `urgent` is as in `notify_due`. Returns the number of
    changed jobs. Fewer than `limit` means that none is left.
    """
    rows: Any = session.execute(
        text(
            # Change only future notifications. Those already due need no change, and every batch
            # would have to skip the rows that earlier batches made due.
            "WITH unheard AS MATERIALIZED (SELECT id FROM jobs"  # noqa: S608  # as above
            " WHERE rings > 0 AND ring_at > (SELECT clock_timestamp())"
            " AND (lease_until IS NULL OR lease_until <= clock_timestamp())"
            f"{_QUEUE_CONDITIONS[urgent]} LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)"
            " UPDATE jobs SET ring_at = clock_timestamp(), rings = 0"
            " FROM unheard WHERE jobs.id = unheard.id"
        ),
        {"limit": limit},
    )
    return int(rows.rowcount)


def pull_notifications_back(session: Session) -> None:
    """Notify jobs now whose next notification is further ahead than the longest wait.

    Such rows exist if the database's clock was set back and no process noticed. A job that was
    staged before the step to run at once has a `due_at` in the future, and becomes due now. A job
    that was staged to run later keeps its time.
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
