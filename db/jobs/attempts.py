"""A claim of a job, and the record of its attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.enums import Queue

#: A job that is notified more often than this without an outcome may be killing its workers. The
#: limit of safety jobs is higher, because they are notified at shorter intervals.
_NOTIFICATIONS_MAX = 2
_SAFETY_NOTIFICATIONS_MAX = 4
#: Longest error text and longest traceback that are kept of one attempt, in characters.
_ERROR_LENGTH_MAX = 2_000
_TRACEBACK_LENGTH_MAX = 20_000


@dataclass(frozen=True)
class Claim:
    """A job that this worker has claimed.

    `committed` is true if the worker commits the claim before the work, with a lease. `rings`
    counts the notifications since the job's last outcome or committed claim.
    """

    job_id: str
    name: str
    kwargs: dict[str, Any]
    queue: str
    correlation_id: str
    attempt: int
    failures: int
    rings: int
    committed: bool
    started_at: datetime
    #: The object that the job refreshes. At most one job waits for each object.
    object_key: str | None = None
    organization_id: str | None = None

    @property
    def may_kill_workers(self) -> bool:
        """Whether the job may be killing its workers; then its claims must be committed."""
        is_safety = self.queue == Queue.SAFETY
        return self.rings > (_SAFETY_NOTIFICATIONS_MAX if is_safety else _NOTIFICATIONS_MAX)

    @property
    def expected_attempt(self) -> int:
        """The attempt number in the row while this claim is the newest one."""
        return self.attempt if self.committed else self.attempt - 1


def write_attempt(
    session: Session,
    claimed: Claim,
    worker: str,
    *,
    outcome: str | None = None,
    error: str | None = None,
    traceback: str | None = None,
) -> None:
    """Insert or update an attempt's row; without an outcome, the job still runs."""
    session.execute(
        text(
            "INSERT INTO job_attempts (job_id, attempt, worker, started_at, ended_at, outcome,"
            " error, traceback) VALUES (:id, :attempt, :worker, :started_at,"
            " CASE WHEN CAST(:outcome AS text) IS NULL THEN NULL ELSE clock_timestamp() END,"
            " :outcome, :error, :traceback)"
            " ON CONFLICT (job_id, attempt) DO UPDATE SET ended_at = excluded.ended_at,"
            " outcome = excluded.outcome, error = excluded.error, traceback = excluded.traceback"
        ),
        {
            "id": claimed.job_id,
            "attempt": claimed.attempt,
            "worker": worker,
            "started_at": claimed.started_at,
            "outcome": outcome,
            "error": short_error(error),
            "traceback": _storable_text(traceback[-_TRACEBACK_LENGTH_MAX:] if traceback else None),
        },
    )


def short_error(error: str | None) -> str | None:
    """Cut an error text to 2,000 characters that PostgreSQL can store."""
    return _storable_text(error[:_ERROR_LENGTH_MAX] if error else None)


def _storable_text(foreign_text: str | None) -> str | None:
    # PostgreSQL's text accepts neither NUL nor half a surrogate pair. A provider's text may contain
    # both, and the failed INSERT would lose the attempt.
    if foreign_text is None:
        return None
    return foreign_text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
