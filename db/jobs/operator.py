"""What a person may do to a job's row: redrive, discard, run it now. Machinery time only.

Each changes one row or none, and says so; who did it and why is the caller's to write down.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.jobs.staging import Staged, ring_after_commit
from db.waits import UNLEASED


def redrive(session: Session, job_id: str) -> bool:
    """Give a dead or refused job its whole policy again and ring it.

    A refusal stays no for as long as its cause does, which a person may have mended. False for a
    job that is neither, or while another one waits for the same object.
    """
    return _ring(
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
    """This function will end a job's wait and ring it; its failures still count.

    False for one that is over, or that a worker holds under a lease.
    """
    return _ring(
        session,
        "UPDATE jobs SET due_at = clock_timestamp(),"  # noqa: S608  # constants of ours
        " ring_at = clock_timestamp(), rings = 0 WHERE id = :id AND ring_at IS NOT NULL"
        f" AND {UNLEASED}"
        " RETURNING name, queue",
        job_id,
    )


def discard(session: Session, job_id: str) -> bool:
    """This function will end a dead job undone, with its last error kept; False if not dead."""
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


def _ring(session: Session, statement: str, job_id: str) -> bool:
    row: Any = session.execute(text(statement), {"id": job_id}).one_or_none()
    if row is not None:
        ring_after_commit(session, Staged(job_id, row.name, row.queue))
    return row is not None
