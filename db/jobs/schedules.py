"""The rows of periodic work: which ticks are due, and which schedules anybody still knows.

Machinery time only. Relays of two versions may run side by side: each ticks what it knows, and only
what none of them has declared for a while is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

#: A schedule that no relay has declared for so long is forgotten, in seconds.
_FORGOTTEN_SECONDS = 600


def declare(session: Session, every_seconds: Mapping[str, int]) -> None:
    """This function will say which schedules this process knows, by their interval.

    A new one ticks first when its interval is over; one whose interval became shorter ticks
    accordingly sooner; one that nobody has declared for ten minutes disappears.
    """
    # Sorted: two relays that declare at once lock the rows in one order.
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
        {"forgotten": _FORGOTTEN_SECONDS},
    )


def lock_due(session: Session, names: list[str]) -> list[tuple[str, bool]]:
    """This function will lock the schedules that are due, and tell of each whether it is free.

    Free is one whose last job is over. A row that another relay holds is left to it.
    """
    rows: Any = session.execute(
        text(
            "SELECT name, NOT EXISTS (SELECT FROM jobs WHERE jobs.id = s.last_job_id"
            " AND jobs.ring_at IS NOT NULL) AS free FROM schedules s"
            " WHERE name = ANY (:names) AND (next_at <= (SELECT clock_timestamp())"
            # Further ahead than its interval: the clock was set back.
            " OR next_at > (SELECT clock_timestamp()) + make_interval(secs => every_seconds))"
            " ORDER BY name FOR NO KEY UPDATE OF s SKIP LOCKED"
        ),
        {"names": names},
    )
    return [(row.name, row.free) for row in rows]


def advance(session: Session, name: str, *, every_seconds: int, job_id: str | None) -> None:
    """This function will set a due schedule's next tick past now, in step with those before.

    However many ticks were missed, one is made up for. `job_id` is what was staged, if anything.
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
