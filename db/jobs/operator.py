"""Operator actions on a job's row: redrive it, run it now, or discard it.

Each function changes one row at most and returns whether it did. The caller records the operator
and the reason. Every instant here is the database's `clock_timestamp()`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.jobs.staging import Staged, notify_after_commit
from db.waits import UNLEASED


def redrive(session: Session, job_id: str) -> bool:
    """Run a dead or refused job again with all of its attempts, and notify a worker.

    A refused job is refused again unless the operator has removed the cause. Returns False if the
    job is neither dead nor refused, or while another job waits for the same object.
    """
    return _notify(
        session,
        "UPDATE jobs SET dead_at = NULL, done_at = NULL, outcome = NULL, failures = 0,"
        " rings = 0, lease_until = NULL, due_at = clock_timestamp(),"
        " ring_at = clock_timestamp()"
        " WHERE id = :id AND (dead_at IS NOT NULL OR outcome = 'refused')"
        " AND NOT EXISTS (SELECT FROM jobs other WHERE other.object_key = jobs.object_key"
        " AND other.ring_at IS NOT NULL AND other.lease_until IS NULL)"
        " RETURNING name, queue",
        job_id,
    )


def run_now(session: Session, job_id: str) -> bool:
    """Make a waiting job due now and notify a worker of it. Its failures still count.

    Returns False if the job is over or dead, or if a worker has leased it.
    """
    return _notify(
        session,
        "UPDATE jobs SET due_at = clock_timestamp(),"  # noqa: S608  # constants of ours
        " ring_at = clock_timestamp(), rings = 0 WHERE id = :id AND ring_at IS NOT NULL"
        f" AND {UNLEASED}"
        " RETURNING name, queue",
        job_id,
    )


def discard(session: Session, job_id: str) -> bool:
    """End a dead job without running it, and keep its last error.

    Returns False if the job is not dead.
    """
    return (
        session.execute(
            text(
                "UPDATE jobs SET dead_at = NULL, done_at = clock_timestamp(),"
                " outcome = 'discarded' WHERE id = :id AND dead_at IS NOT NULL RETURNING id"
            ),
            {"id": job_id},
        ).one_or_none()
        is not None
    )


def _notify(session: Session, statement: str, job_id: str) -> bool:
    row: Any = session.execute(text(statement), {"id": job_id}).one_or_none()
    if row is not None:
        notify_after_commit(session, Staged(job_id, row.name, row.queue))
    return row is not None
