"""Delete old finished jobs and the bodies of old handled events.

Open and dead jobs stay. The rows of inbox events stay too, because a repeated event without its row
would be handled as a new one. Each call processes a bounded number of rows. Several processes may
prune at once, because each skips rows that another has locked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.ids import first_id


def prune_jobs(session: Session, *, over_before: datetime, limit: int) -> int:
    """Delete up to `limit` jobs that ended before this instant, with their attempts.

    Returns the number of deleted jobs. Fewer than `limit` means that none is left, unless another
    process has locked some.
    """
    rows: Any = session.execute(
        text(
            # Ids are ordered by time, so the primary key finds the oldest jobs. An index on done_at
            # would cost every job another write.
            "WITH old AS MATERIALIZED (SELECT id FROM jobs WHERE id < :first AND done_at < :before"
            " ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED),"
            " attempts AS (DELETE FROM job_attempts USING old WHERE job_id = old.id)"
            " DELETE FROM jobs USING old WHERE jobs.id = old.id"
        ),
        {"first": first_id("job", over_before), "before": over_before, "limit": limit},
    )
    return int(rows.rowcount)


def prune_bodies(session: Session, *, handled_before: datetime, limit: int) -> int:
    """Delete up to `limit` bodies of events that were handled before this instant.

    Returns the number of deleted bodies. Fewer than `limit` means that none is left, unless another
    process has locked some.
    """
    rows: Any = session.execute(
        text(
            "WITH old AS MATERIALIZED (SELECT id FROM inbox WHERE body IS NOT NULL"
            " AND id < :first AND handled_at < :before"
            " ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)"
            " UPDATE inbox SET body = NULL FROM old WHERE inbox.id = old.id"
        ),
        {"first": first_id("evt", handled_before), "before": handled_before, "limit": limit},
    )
    return int(rows.rowcount)
