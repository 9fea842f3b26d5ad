"""Claim a job, then finish, refuse, postpone, fail or bury it.

Jobs are staged in db/jobs/staging.py. Operator actions on jobs are in db/jobs/operator.py.

Every instant here is the database's `clock_timestamp()`. The claimed job's row is the first lock of
its transaction.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.jobs.attempts import Claim, short_error, write_attempt
from db.waits import AGAIN_SECONDS_MAX, DUE, UNLEASED

#: The error text of a job that is finished because another job waits for the same object.
_SUPERSEDED_ERROR = "another job refreshes the same object"
#: Assignments that make the job due, and notified, after a delay from now.
_DUE_AFTER_DELAY = (
    "due_at = clock_timestamp() + make_interval(secs => :delay),"
    " ring_at = clock_timestamp() + make_interval(secs => :delay)"
)

# Every job runs the next two statements. They bypass SQLAlchemy's text(), which would be half of
# their cost. Because of the bypass, they do not flush the session's pending changes.
_CLAIM_SQL = (
    "SELECT name, kwargs, queue, correlation_id, attempt, failures, rings, object_key,"  # noqa: S608
    " organization_id,"
    " lease_until IS NOT NULL AS abandoned, clock_timestamp() AS now FROM jobs"
    f" WHERE id = %(id)s AND done_at IS NULL AND dead_at IS NULL AND {DUE} AND {UNLEASED}"
    " FOR NO KEY UPDATE SKIP LOCKED"
)
#: Ends the job and records its attempt in one statement, because nearly every job ends here.
_FINISH_SQL = (
    "WITH ended AS (UPDATE jobs SET done_at = clock_timestamp(), outcome = %(outcome)s,"
    " ring_at = NULL, last_error = %(error)s, attempt = %(attempt)s, worker = %(worker)s,"
    " lease_until = NULL WHERE id = %(id)s AND attempt = %(expected)s AND done_at IS NULL"
    " AND dead_at IS NULL RETURNING id, attempt, done_at)"
    " INSERT INTO job_attempts (job_id, attempt, worker, started_at, ended_at, outcome, error)"
    " SELECT id, attempt, %(worker)s, %(started_at)s, done_at, %(outcome)s, %(error)s FROM ended"
    " ON CONFLICT (job_id, attempt) DO UPDATE SET ended_at = excluded.ended_at,"
    " outcome = excluded.outcome, error = excluded.error RETURNING job_id"
)


def claim(session: Session, job_id: str, *, worker: str, lease_seconds: float) -> Claim | None:
    """Claim a due job; return None if it is done, dead, not due, locked or leased.

    With `lease_seconds` above 0, the caller commits the claim before the work. The attempt is
    counted at once, and the next notification is set to the end of the lease. With 0, the row only
    stays locked until the caller's transaction ends.

    If the previous lease ran out without an outcome, its worker died. The claim counts that as one
    failure.
    """
    row = session.connection().exec_driver_sql(_CLAIM_SQL, {"id": job_id}).one_or_none()
    if row is None:
        return None
    failures = row.failures + int(row.abandoned)
    committed = lease_seconds > 0
    claimed = Claim(
        job_id=job_id,
        name=row.name,
        kwargs=row.kwargs,
        queue=row.queue,
        correlation_id=row.correlation_id,
        attempt=row.attempt + 1,
        failures=failures,
        rings=row.rings,
        committed=committed,
        started_at=row.now,
        object_key=row.object_key,
        organization_id=row.organization_id,
    )
    if committed:
        session.execute(
            text(
                "UPDATE jobs SET attempt = :attempt, failures = :failures, worker = :worker,"
                " rings = 0, lease_until = lease.ends_at, ring_at = lease.ends_at"
                # The clock is read once for both instants. A notification just before the end of
                # the lease would have no effect.
                " FROM (SELECT clock_timestamp() + make_interval(secs => :lease) AS ends_at) lease"
                " WHERE id = :id"
            ),
            {
                "id": job_id,
                "attempt": claimed.attempt,
                "failures": failures,
                "worker": worker,
                "lease": float(lease_seconds),
            },
        )
        write_attempt(session, claimed, worker)
    return claimed


def lock_claimed(session: Session, claimed: Claim) -> bool:
    """Lock the row of a claimed job; return False if a newer claim exists.

    A transaction that records a provider's response takes this lock first. If the result is False,
    the caller still stores the response and leaves the job to the newer claim.
    """
    locked = session.execute(
        text(
            "SELECT 1 FROM jobs WHERE id = :id AND attempt = :attempt AND done_at IS NULL"
            " AND dead_at IS NULL FOR NO KEY UPDATE"
        ),
        {"id": claimed.job_id, "attempt": claimed.expected_attempt},
    )
    return locked.one_or_none() is not None


def finish(
    session: Session,
    claimed: Claim,
    *,
    worker: str,
    outcome: str = "done",
    error: str | None = None,
) -> bool:
    """End the job as done or refused; return False if a newer claim exists."""
    ended = session.connection().exec_driver_sql(
        _FINISH_SQL,
        {
            "id": claimed.job_id,
            "attempt": claimed.attempt,
            "expected": claimed.expected_attempt,
            "worker": worker,
            "started_at": claimed.started_at,
            "outcome": outcome,
            "error": short_error(error),
        },
    )
    return ended.one_or_none() is not None


def postpone(
    session: Session, claimed: Claim, *, worker: str, delay_seconds: float, detail: str
) -> bool:
    """Postpone the job, by half an hour at most, without using up an attempt.

    If another job waits for the same object, the claimed job is finished instead. The waiting job
    becomes due at the postponed time if it was due later. Return False if a newer claim exists.
    """
    if _advance_other_job(session, claimed, delay_seconds):
        return finish(session, claimed, worker=worker, error=f"{_SUPERSEDED_ERROR}; {detail}")
    changed = _end_attempt(
        session,
        claimed,
        worker,
        f"{_DUE_AFTER_DELAY}, failures = :failures, postponements = postponements + 1, rings = 0",
        {
            "failures": claimed.failures,
            "delay": min(float(delay_seconds), AGAIN_SECONDS_MAX),
        },
    )
    if changed:
        write_attempt(session, claimed, worker, outcome="postponed", error=detail)
    return changed


def fail(
    session: Session,
    claimed: Claim,
    *,
    worker: str,
    error: str,
    traceback: str | None,
    retry_seconds: float | None,
) -> bool:
    """Record a failed attempt; retry the job, or bury it if `retry_seconds` is None.

    A retry waits half an hour at most. If another job waits for the same object, the failed job is
    finished instead of retried. The waiting job becomes due at the time of the retry if it was due
    later. Return False if a newer claim exists.
    """
    if retry_seconds is not None and _advance_other_job(session, claimed, retry_seconds):
        return finish(session, claimed, worker=worker, error=f"{_SUPERSEDED_ERROR}; {error}")
    next_notification = (
        "ring_at = NULL, dead_at = clock_timestamp()" if retry_seconds is None else _DUE_AFTER_DELAY
    )
    changed = _end_attempt(
        session,
        claimed,
        worker,
        f"failures = :failures, rings = 0, last_error = :error, {next_notification}",
        {
            "failures": claimed.failures + 1,
            "error": short_error(error),
            "delay": None if retry_seconds is None else min(retry_seconds, AGAIN_SECONDS_MAX),
        },
    )
    if changed:
        write_attempt(session, claimed, worker, outcome="failed", error=error, traceback=traceback)
    return changed


def _advance_other_job(session: Session, claimed: Claim, delay_seconds: float) -> bool:
    """Make another waiting job of the object due after the delay, or earlier.

    Return False if no other job waits.
    """
    if claimed.object_key is None:
        return False
    advanced = session.execute(
        text(
            "UPDATE jobs SET"
            " due_at = least(due_at, clock_timestamp() + make_interval(secs => :delay)),"
            " ring_at = least(ring_at, clock_timestamp() + make_interval(secs => :delay))"
            " WHERE object_key = :key AND ring_at IS NOT NULL AND lease_until IS NULL"
            " AND id <> :id RETURNING id"
        ),
        {"key": claimed.object_key, "delay": float(delay_seconds), "id": claimed.job_id},
    )
    return advanced.one_or_none() is not None


def _end_attempt(
    session: Session, claimed: Claim, worker: str, assignments: str, values: dict[str, Any]
) -> bool:
    """Update the claimed job's row and end its lease.

    Return False if a newer claim exists.
    """
    return (
        session.execute(
            text(
                f"UPDATE jobs SET {assignments}, attempt = :attempt, worker = :worker,"  # noqa: S608
                " lease_until = NULL WHERE id = :id AND attempt = :expected"
                " AND done_at IS NULL AND dead_at IS NULL RETURNING id"
            ),
            {
                "id": claimed.job_id,
                "attempt": claimed.attempt,
                "expected": claimed.expected_attempt,
                "worker": worker,
                **values,
            },
        ).one_or_none()
        is not None
    )
