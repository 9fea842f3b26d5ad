"""Finds due safety jobs in PostgreSQL, for workers whose Redis does not notify them.

A job is due here by its own row (`due_at`, lease). `ring_at` does not count: it says only when the
relay notifies next, and moves far ahead while notifications are lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.waits import DUE, UNLEASED

# The queue is a literal, so that the partial index of open safety jobs is used.
_TAKE = text(
    "WITH due AS MATERIALIZED (SELECT id FROM jobs"  # noqa: S608  # constants of ours
    " WHERE ring_at IS NOT NULL AND queue = 'safety' AND name = ANY (:names)"
    f" AND {DUE} AND {UNLEASED}"
    " ORDER BY due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)"
    " UPDATE jobs SET rings = least(rings + 1, 1000)"
    " FROM due WHERE jobs.id = due.id RETURNING jobs.id"
)


def take_due_safety(session: Session, names: Sequence[str], limit: int = 1) -> list[str]:
    """Give up to `limit` due safety jobs of these names, and count each as notified once more.

    The caller runs them at once; each run claims its job as it does after a message, so a job that
    two workers were given runs once. Jobs that a worker has locked or leased are skipped. The count
    is what makes a job that keeps killing its workers commit its attempts first.
    """
    rows = session.execute(_TAKE, {"names": list(names), "limit": limit})
    return [row.id for row in rows]
