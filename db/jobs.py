"""The life of a job's row: staged, claimed, then finished, refused, postponed, failed or buried.
What people may do to it by hand stands in db/job_acts.py.

Machinery time only: every instant here is SQL's clock_timestamp(). The claimed job is the first
lock of its transaction, and staging is a plain INSERT, so nobody who holds a later lock waits here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.ids import new_id

#: Seconds after staging at which the relay rings if the ringer's own push was lost.
_FIRST_RING_SECONDS = 2
#: A job rung more often than this without an outcome may be killing its workers.
RINGS_BEFORE_COMMITTED_CLAIM = 2
#: Longest error text and traceback kept of one attempt, in characters.
_ERROR_LENGTH_MAX = 2_000
_TRACEBACK_LENGTH_MAX = 20_000

#: Sets both instants of a wait that begins now.
_WAIT = (
    "due_at = clock_timestamp() + make_interval(secs => :delay),"
    " ring_at = clock_timestamp() + make_interval(secs => :delay)"
)

# These three are the driver's own, since every job passes here: SQLAlchemy's text would be half of
# their cost. Changes that wait in the session are not flushed by them.
_STAGE = (
    "INSERT INTO jobs (id, name, kwargs, organization_id, queue, cause, correlation_id, due_at,"
    " ring_at) VALUES (%(id)s, %(name)s, %(kwargs)s::jsonb, %(organization_id)s, %(queue)s,"
    " %(cause)s, %(correlation_id)s, clock_timestamp() + make_interval(secs => %(delay)s),"
    " clock_timestamp() + make_interval(secs => %(ring)s))"
)
_CLAIM = (
    "SELECT name, kwargs, organization_id, queue, correlation_id, attempt, failures, rings,"
    " lease_until IS NOT NULL AS abandoned, clock_timestamp() AS now FROM jobs"
    " WHERE id = %(id)s AND done_at IS NULL AND dead_at IS NULL AND due_at <= clock_timestamp()"
    " AND (lease_until IS NULL OR lease_until <= clock_timestamp())"
    " FOR NO KEY UPDATE SKIP LOCKED"
)
#: The row and its attempt's in one statement, since this is what nearly every job comes to.
_FINISH = (
    "WITH ended AS (UPDATE jobs SET done_at = clock_timestamp(), outcome = %(outcome)s,"
    " ring_at = NULL, last_error = %(error)s, attempt = %(attempt)s, worker = %(worker)s,"
    " lease_until = NULL WHERE id = %(id)s AND attempt = %(expected)s AND done_at IS NULL"
    " AND dead_at IS NULL RETURNING id, attempt, done_at)"
    " INSERT INTO job_attempts (job_id, attempt, worker, started_at, ended_at, outcome, error)"
    " SELECT id, attempt, %(worker)s, %(started_at)s, done_at, %(outcome)s, %(error)s FROM ended"
    " ON CONFLICT (job_id, attempt) DO UPDATE SET ended_at = excluded.ended_at,"
    " outcome = excluded.outcome, error = excluded.error RETURNING job_id"
)

_STAGED = "holdfast.staged"
_CAUSE = "holdfast.cause"


@dataclass(frozen=True)
class Staged:
    """What a bell needs: which job, of what name, in which queue."""

    job_id: str
    name: str
    queue: str


@dataclass(frozen=True)
class Cause:
    """What staged a job, and the correlation id that ties it to its webhook or command."""

    cause: str | None
    correlation_id: str


@dataclass(frozen=True)
class Claim:
    """A job in this worker's hands. `committed` says that the claim is visible to others."""

    job_id: str
    name: str
    kwargs: dict[str, Any]
    organization_id: str | None
    queue: str
    correlation_id: str
    attempt: int
    failures: int
    rings: int
    committed: bool
    started_at: datetime

    @property
    def expected_attempt(self) -> int:
        """The attempt that the row shows while this claim is the newest."""
        return self.attempt if self.committed else self.attempt - 1


def set_cause(session: Session, cause: Cause) -> None:
    """This function will say what the jobs staged in this session's transaction come from."""
    session.info[_CAUSE] = cause


def staged_in(session: Session) -> list[Staged]:
    """This function will list the jobs staged so far by this session that are due at once."""
    staged: list[Staged] = session.info.get(_STAGED, [])
    return staged


def insert(
    session: Session,
    *,
    name: str,
    queue: str,
    kwargs: dict[str, Any],
    organization_id: str | None,
    delay_seconds: float = 0,
) -> str:
    """This function will stage a job in the caller's transaction and give its id.

    Units: `delay_seconds` from the database's clock; 0 rings as soon as the commit is done.
    """
    many = [(organization_id, kwargs)]
    return insert_many(session, name=name, queue=queue, many=many, delay_seconds=delay_seconds)[0]


def insert_many(
    session: Session,
    *,
    name: str,
    queue: str,
    many: Sequence[tuple[str | None, dict[str, Any]]],
    delay_seconds: float = 0,
) -> list[str]:
    """This function will stage jobs of one name, each an organization and arguments, at once.

    Gives their ids. Units: as for one.
    """
    if not many:
        return []
    # One correlation id for all that this transaction stages.
    cause: Cause = session.info.setdefault(_CAUSE, Cause(None, new_id("cor")))
    rows = [
        {
            "id": new_id("job"),
            "name": name,
            "kwargs": json.dumps(kwargs),
            "organization_id": organization_id,
            "queue": queue,
            "cause": cause.cause,
            "correlation_id": cause.correlation_id,
            "delay": float(delay_seconds),
            "ring": float(delay_seconds or _FIRST_RING_SECONDS),
        }
        for organization_id, kwargs in many
    ]
    session.connection().exec_driver_sql(_STAGE, rows if len(rows) > 1 else rows[0])
    if not delay_seconds:
        for row in rows:
            ring_after_commit(session, Staged(str(row["id"]), name, queue))
    return [str(row["id"]) for row in rows]


def owed_arguments(session: Session, name: str) -> list[dict[str, Any]]:
    """This function will give the arguments of a name's jobs that are neither done nor dead."""
    rows = session.execute(
        # What is owed has a bell, and only that is in the index.
        text("SELECT kwargs FROM jobs WHERE name = :name AND ring_at IS NOT NULL"),
        {"name": name},
    )
    return [row.kwargs for row in rows]


def ring_after_commit(session: Session, staged: Staged) -> None:
    """This function will have the process ring for a job once this transaction is committed."""
    session.info.setdefault(_STAGED, []).append(staged)


def claim(session: Session, job_id: str, *, worker: str, lease_seconds: float) -> Claim | None:
    """This function will take the job if it is free: None if done, dead, locked or leased.

    With `lease_seconds` the claim is meant to be committed before the work: the attempt is counted
    and the bell set to the lease's end. A row whose last lease ran out without an end counts as
    one more failure, since its worker died. With 0 the row only stays locked until the caller's
    transaction ends.
    """
    row = session.connection().exec_driver_sql(_CLAIM, {"id": job_id}).one_or_none()
    if row is None:
        return None
    failures = row.failures + int(row.abandoned)
    committed = lease_seconds > 0
    claimed = Claim(
        job_id=job_id,
        name=row.name,
        kwargs=row.kwargs,
        organization_id=row.organization_id,
        queue=row.queue,
        correlation_id=row.correlation_id,
        attempt=row.attempt + 1,
        failures=failures,
        rings=row.rings,
        committed=committed,
        started_at=row.now,
    )
    if committed:
        session.execute(
            text(
                "UPDATE jobs SET attempt = :attempt, failures = :failures, worker = :worker,"
                " rings = 0, lease_until = lease.ends_at, ring_at = lease.ends_at"
                # One reading of the clock: a bell before the lease's end would ring for nothing.
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
        _write_attempt(session, claimed, worker)
    return claimed


def lock_claimed(session: Session, claimed: Claim) -> bool:
    """This function will lock the claimed row if it is still this claim's; False if not.

    The first lock of a transaction that records a provider's answer: where it is False, what the
    provider said is still stored and the job is left to whoever has it now.
    """
    found = session.execute(
        text(
            "SELECT 1 FROM jobs WHERE id = :id AND attempt = :attempt AND done_at IS NULL"
            " AND dead_at IS NULL FOR NO KEY UPDATE"
        ),
        {"id": claimed.job_id, "attempt": claimed.expected_attempt},
    )
    return found.one_or_none() is not None


def finish(
    session: Session,
    claimed: Claim,
    *,
    worker: str,
    outcome: str = "done",
    error: str | None = None,
) -> bool:
    """This function will mark the job done (or refused); False if another claim has it now."""
    ended = session.connection().exec_driver_sql(
        _FINISH,
        {
            "id": claimed.job_id,
            "attempt": claimed.attempt,
            "expected": claimed.expected_attempt,
            "worker": worker,
            "started_at": claimed.started_at,
            "outcome": outcome,
            "error": _short(error),
        },
    )
    return ended.one_or_none() is not None


def postpone(
    session: Session, claimed: Claim, *, worker: str, delay_seconds: float, detail: str
) -> bool:
    """This function will set the bell for later without using up an attempt of the policy."""
    changed = _update(
        session,
        claimed,
        f"{_WAIT}, failures = :failures, postponements = postponements + 1, rings = 0",
        {"failures": claimed.failures, "delay": float(delay_seconds), "worker": worker},
    )
    if changed:
        _write_attempt(session, claimed, worker, outcome="postponed", error=detail)
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
    """This function will record a failed attempt: retried after `retry_seconds`, dead if None."""
    ring = "ring_at = NULL, dead_at = clock_timestamp()" if retry_seconds is None else _WAIT
    changed = _update(
        session,
        claimed,
        f"failures = :failures, rings = 0, last_error = :error, {ring}",
        {
            "failures": claimed.failures + 1,
            "error": _short(error),
            "delay": retry_seconds,
            "worker": worker,
        },
    )
    if changed:
        _write_attempt(session, claimed, worker, outcome="failed", error=error, trace=traceback)
    return changed


def _update(session: Session, claimed: Claim, assignments: str, values: dict[str, Any]) -> bool:
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
                **values,
            },
        ).one_or_none()
        is not None
    )


def _write_attempt(
    session: Session,
    claimed: Claim,
    worker: str,
    *,
    outcome: str | None = None,
    error: str | None = None,
    trace: str | None = None,
) -> None:
    session.execute(
        text(
            "INSERT INTO job_attempts (job_id, attempt, worker, started_at, ended_at, outcome,"
            " error, traceback) VALUES (:id, :attempt, :worker, :started_at,"
            " CASE WHEN CAST(:outcome AS text) IS NULL THEN NULL ELSE clock_timestamp() END,"
            " :outcome, :error, :trace)"
            " ON CONFLICT (job_id, attempt) DO UPDATE SET ended_at = excluded.ended_at,"
            " outcome = excluded.outcome, error = excluded.error, traceback = excluded.traceback"
        ),
        {
            "id": claimed.job_id,
            "attempt": claimed.attempt,
            "worker": worker,
            "started_at": claimed.started_at,
            "outcome": outcome,
            "error": _short(error),
            "trace": _storable(trace[-_TRACEBACK_LENGTH_MAX:] if trace else None),
        },
    )


def _short(error: str | None) -> str | None:
    return _storable(error[:_ERROR_LENGTH_MAX] if error else None)


def _storable(text_of_others: str | None) -> str | None:
    # PostgreSQL's text holds neither NUL nor half a surrogate pair, which a provider's might.
    if text_of_others is None:
        return None
    return text_of_others.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
