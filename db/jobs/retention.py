"""What is kept how long: drops what has been over for its time, a bounded number of rows at once.

Never a job that is dead or still owed, and never an event's row: without it a repeat would pass for
news. Several may prune at once: each takes rows that nobody else holds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.ids import first_id


def prune_jobs(session: Session, *, over_before: datetime, limit: int) -> int:
    """This function will delete up to `limit` jobs that were over before an instant.

    Their attempts go with them. Gives how many; fewer than `limit` means that none is left.
    """
    rows: Any = session.execute(
        text(
            # By id, oldest first, because an index on done_at would cost every job a write.
            "WITH old AS MATERIALIZED (SELECT id FROM jobs WHERE id < :first AND done_at < :before"
            " ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED),"
            " attempts AS (DELETE FROM job_attempts USING old WHERE job_id = old.id)"
            " DELETE FROM jobs USING old WHERE jobs.id = old.id"
        ),
        {"first": first_id("job", over_before), "before": over_before, "limit": limit},
    )
    return int(rows.rowcount)


def prune_bodies(session: Session, *, handled_before: datetime, limit: int) -> int:
    """This function will drop up to `limit` bodies of events that were handled before an instant.

    Gives how many; fewer than `limit` means that none is left.
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
