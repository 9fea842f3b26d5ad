"""The rows of schedules: declare them, lock those that are due, and advance them.

Every instant here is the database's `clock_timestamp()`. Relays of two versions may run at the same
time. Each stages jobs only for the schedules of its version. A schedule is deleted after no relay
has declared it for ten minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

#: Seconds after which a schedule that no relay has declared is deleted.
_UNDECLARED_SECONDS_MAX = 600


def declare(session: Session, every_seconds: Mapping[str, int]) -> None:
    """Declare the schedules of this process and their intervals, in seconds.

    A new schedule is first due after one interval. If an interval has become shorter, the schedule
    is due correspondingly sooner. A schedule that no relay has declared for ten minutes is deleted.
    """
    # Two relays that declare at once must lock the rows in the same order, or they could deadlock.
    for name, every in sorted(every_seconds.items()):
        session.execute(
            text(
                "INSERT INTO schedules AS s (name, every_seconds, next_at, declared_at)"
                " SELECT :name, :every, c.now + make_interval(secs => :every), c.now"
                " FROM (SELECT clock_timestamp() AS now) c"
                " ON CONFLICT (name) DO UPDATE SET declared_at = excluded.declared_at,"
                " next_at = least(s.next_at, excluded.next_at)"
            ),
            {"name": name, "every": every},
        )
    session.execute(
        text(
            "DELETE FROM schedules WHERE declared_at"
            " < clock_timestamp() - make_interval(secs => :forgotten)"
        ),
        {"forgotten": _UNDECLARED_SECONDS_MAX},
    )


def lock_due(session: Session, names: list[str]) -> list[tuple[str, bool]]:
    """Lock the schedules that are due; return their names and whether each is free.

    A schedule is free if its last job is over or dead. Rows that another relay has locked are
    skipped.
    """
    rows: Any = session.execute(
        text(
            "SELECT name, NOT EXISTS (SELECT FROM jobs WHERE jobs.id = s.last_job_id"
            " AND jobs.ring_at IS NOT NULL) AS free FROM schedules s"
            " WHERE name = ANY (:names) AND (next_at <= (SELECT clock_timestamp())"
            # If it is further ahead than one interval, the clock was set back.
            " OR next_at > (SELECT clock_timestamp()) + make_interval(secs => every_seconds))"
            " ORDER BY name FOR NO KEY UPDATE OF s SKIP LOCKED"
        ),
        {"names": names},
    )
    return [(row.name, row.free) for row in rows]


def advance(session: Session, name: str, *, every_seconds: int, job_id: str | None) -> None:
    """Set a due schedule's next time to the first multiple of its interval after now.

    Times that were missed are skipped, so that a schedule stages at most one job for all of them.
    `every_seconds` is stored as its interval. `job_id` is the staged job, if any.
    """
    session.execute(
        text(
            "UPDATE schedules SET every_seconds = :every, next_at = next_at"
            " + make_interval(secs => :every) * (floor(extract(epoch FROM c.now - next_at)"
            " / :every) + 1),"
            " last_at = CASE WHEN CAST(:job AS text) IS NULL THEN last_at ELSE c.now END,"
            " last_job_id = coalesce(:job, last_job_id)"
            " FROM (SELECT clock_timestamp() AS now) c WHERE name = :name"
        ),
        {"name": name, "every": every_seconds, "job": job_id},
    )
