"""The rows of running processes: written by each process, checked for silent ones.

Every instant here is the database's `clock_timestamp()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

Kind = Literal["ingress", "worker", "relay"]

#: Seconds after which a process that has not written its row counts as dead or stopped.
SILENT_SECONDS = 10.0
#: Seconds between two checks, by all processes together.
CHECK_SECONDS = 1.5
#: Seconds for which a silent process stays in the list.
_KEPT_SECONDS = 3_600
#: Key of the advisory lock that allows one check at a time. Its value has no meaning.
_CHECK_LOCK = 4_713_203

# The commit does not wait for the disk. If a crash of the server loses the row, the process writes
# it again.
_BEAT = text(
    "WITH unflushed AS MATERIALIZED"
    " (SELECT set_config('synchronous_commit', 'off', true) AS setting, clock_timestamp() AS now)"
    " INSERT INTO processes AS p (id, kind, name, queues, started_at, seen_at, redis_away_since)"
    " SELECT :id, :kind, :name, :queues, now, now, now - make_interval(secs => :away)"
    " FROM unflushed"
    " ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at,"
    " redis_away_since = excluded.redis_away_since"
    " RETURNING NOT EXISTS (SELECT FROM processes"
    " WHERE abs(extract(epoch FROM clock_timestamp() - checked_at)) < :check)"
)
_BEGIN_CHECK = text(
    "UPDATE processes SET checked_at = clock_timestamp() WHERE id = :id"
    " AND started_at <= clock_timestamp() - make_interval(secs => :silent)"
    " AND pg_try_advisory_xact_lock(:lock)"
    " AND NOT EXISTS (SELECT FROM processes"
    " WHERE abs(extract(epoch FROM clock_timestamp() - checked_at)) < :check)"
    " RETURNING id"
)
_LIST = text(
    "SELECT id, kind, name, queues, started_at, seen_at, redis_away_since,"
    # The difference counts in both directions. After a step back, an older row is in the future.
    " abs(extract(epoch FROM clock_timestamp() - seen_at)) < :silent AS live,"
    " extract(epoch FROM clock_timestamp() - redis_away_since) AS redis_away_seconds"
    " FROM processes ORDER BY kind, name, started_at"
)
# The queue is a literal, so that the partial index of open safety jobs is used.
_OVERDUE = text(
    "SELECT count(*) AS jobs, min(since) AS since,"
    " extract(epoch FROM clock_timestamp() - min(since)) AS seconds"
    " FROM (SELECT greatest(due_at, lease_until) AS since FROM jobs"
    " WHERE ring_at IS NOT NULL AND queue = 'safety') open_jobs"
    " WHERE since <= clock_timestamp() - make_interval(secs => :seconds)"
)
_WAITING = text(
    "SELECT queue FROM unnest(CAST(:queues AS text[])) AS q (queue) WHERE EXISTS"
    " (SELECT FROM jobs WHERE jobs.queue = q.queue AND ring_at IS NOT NULL"
    " AND due_at <= clock_timestamp() - make_interval(secs => :seconds)"
    " AND (lease_until IS NULL OR lease_until <= clock_timestamp()))"
)


@dataclass(frozen=True)
class ProcessState:
    """A process, as it last wrote its row."""

    id: str
    kind: Kind
    name: str
    queues: tuple[str, ...]
    started_at: datetime
    seen_at: datetime
    live: bool
    redis_away_since: datetime | None
    redis_away_seconds: float


@dataclass(frozen=True)
class Overdue:
    """Safety jobs that are due and that no worker has claimed."""

    jobs: int
    since: datetime
    seconds: float


def write_heartbeat(
    session: Session,
    process_id: str,
    *,
    kind: Kind,
    name: str,
    queues: Sequence[str],
    redis_away_seconds: float | None,
) -> bool:
    """Write the row of a running process; return whether a check of all is due."""
    return bool(
        session.execute(
            _BEAT,
            {
                "id": process_id,
                "kind": kind,
                "name": name,
                "queues": list(queues),
                "away": redis_away_seconds,
                "check": CHECK_SECONDS,
            },
        ).scalar_one()
    )


def delete_process(session: Session, process_id: str) -> None:
    """Delete the row of a process that stops normally."""
    session.execute(text("DELETE FROM processes WHERE id = :id"), {"id": process_id})


def begin_check(session: Session, process_id: str) -> bool:
    """Claim the check of all processes for this transaction.

    Returns False if another process is doing it or has just done it. Returns False too if this
    process has just started, because the others may still be starting.
    """
    claimed = session.execute(
        _BEGIN_CHECK,
        {
            "id": process_id,
            "silent": SILENT_SECONDS,
            "lock": _CHECK_LOCK,
            "check": CHECK_SECONDS,
        },
    ).one_or_none()
    return claimed is not None


def prune(session: Session) -> None:
    """Delete the rows of processes that have been silent for an hour."""
    session.execute(
        text(
            "DELETE FROM processes WHERE abs(extract(epoch FROM clock_timestamp() - seen_at)) > :s"
        ),
        {"s": _KEPT_SECONDS},
    )


def list_processes(session: Session) -> list[ProcessState]:
    """List every process of the last hour, silent ones included."""
    return [
        ProcessState(
            id=row.id,
            kind=row.kind,
            name=row.name,
            queues=tuple(row.queues),
            started_at=row.started_at,
            seen_at=row.seen_at,
            live=row.live,
            redis_away_since=row.redis_away_since,
            redis_away_seconds=float(row.redis_away_seconds or 0),
        )
        for row in session.execute(_LIST, {"silent": SILENT_SECONDS})
    ]


def overdue_safety_jobs(session: Session, seconds: float) -> Overdue | None:
    """Summarize safety jobs that have been due and unclaimed for so many seconds.

    Returns None if there are none.
    """
    row = session.execute(_OVERDUE, {"seconds": seconds}).one()
    return Overdue(row.jobs, row.since, float(row.seconds)) if row.jobs else None


def queues_with_due_work(session: Session, queues: Sequence[str], seconds: float) -> list[str]:
    """List those of the queues in which an unleased job has been due for so long."""
    rows = session.execute(_WAITING, {"queues": list(queues), "seconds": seconds})
    return [row.queue for row in rows]
