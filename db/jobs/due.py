"""Find due safety jobs in PostgreSQL, for workers that Redis does not notify.

Whether a job is due depends on its `due_at` and its lease, and not on its `ring_at`. That column
only stores the time of the relay's next notification, and moves far ahead while notifications are
lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.waits import AGAIN_SECONDS_MAX, UNLEASED

#: Statement timeout of a take, in milliseconds. A take reads only a few rows of an index.
_TAKE_MS_MAX = 2_000

# Sets the statement timeout for this transaction only, and reads the clock, because the index range
# of the take needs a fixed instant.
_BEGIN_TAKE = text(
    f"SELECT set_config('statement_timeout', '{_TAKE_MS_MAX}ms', true), clock_timestamp() AS now"
)
# Two ranges of `due_at` count as due, as in `db.waits.DUE`. Each name and range is a separate scan
# of the index `jobs_safety_due`, so that a backlog of other names or of waiting jobs costs nothing.
# The queue is a literal, because the index is partial. Rows that are locked but not chosen become
# free at the commit.
TAKE = text(
    "WITH due AS MATERIALIZED ("  # noqa: S608  # only constants are inserted
    "SELECT job.id FROM unnest(CAST(:names AS text[])) AS requested (name)"
    " CROSS JOIN (VALUES"
    " (CAST('-infinity' AS timestamptz), CAST(:now AS timestamptz), 0),"
    f" (CAST(:now AS timestamptz) + interval '{AGAIN_SECONDS_MAX:.0f} seconds', 'infinity', 1)"
    " ) AS range (after, until, attempts)"
    " CROSS JOIN LATERAL (SELECT jobs.id, jobs.due_at FROM jobs"
    " WHERE ring_at IS NOT NULL AND queue = 'safety' AND jobs.name = requested.name"
    " AND due_at > range.after AND due_at <= range.until AND attempt >= range.attempts"
    f" AND {UNLEASED}"
    " ORDER BY due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) AS job"
    " ORDER BY job.due_at LIMIT :limit)"
    " UPDATE jobs SET rings = least(rings + 1, 1000)"
    " FROM due WHERE jobs.id = due.id RETURNING jobs.id"
)


def take_due_safety(session: Session, names: Sequence[str], limit: int = 1) -> list[str]:
    """Take due safety jobs of these names, and count one notification of each.

    Bounds: `limit` jobs. The caller runs the jobs at once. Each run claims its job, as after a
    notification, so a job that two workers took runs once. Jobs that a worker has locked or leased
    are skipped. The count of notifications shows when a job keeps killing its workers. Its claims
    are then committed before its work. If the take lasts longer than two seconds, `Database.run`
    raises DatabaseBusy.
    """
    rows = session.execute(TAKE, begin_take(session, names, limit))
    return [row.id for row in rows]


def begin_take(session: Session, names: Sequence[str], limit: int) -> dict[str, Any]:
    """Set the transaction's statement timeout, and return the parameters of `TAKE`."""
    now = session.execute(_BEGIN_TAKE).one().now
    return {"names": list(names), "limit": limit, "now": now}
