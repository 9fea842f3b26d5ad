"""Stage jobs in the transaction that needs them, and notify after its commit.

`insert` and `insert_many` only add rows with new ids and never wait for a lock. `insert_once`
may wait, because it may update the row of a waiting job. Every instant here is the database's
`clock_timestamp()`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.ids import new_id

#: Seconds after staging until the relay repeats the notification, in case that of this process is
#: lost.
FIRST_NOTIFICATION_SECONDS = 2
# Every job runs this statement. It bypasses SQLAlchemy's text(), which would be half of its cost.
# Because of the bypass, it does not flush the session's pending changes.
_STAGE_SQL = (
    "INSERT INTO jobs (id, name, kwargs, organization_id, queue, cause, correlation_id, due_at,"
    " ring_at) VALUES (%(id)s, %(name)s, %(kwargs)s::jsonb, %(organization_id)s, %(queue)s,"
    " %(cause)s, %(correlation_id)s, clock_timestamp() + make_interval(secs => %(delay)s),"
    " clock_timestamp() + make_interval(secs => %(ring)s))"
)
# If a job already waits for the same object, that job becomes due earlier instead. Its row stays
# locked until the caller's commit, so that no worker starts it before the caller's changes are
# visible.
_STAGE_ONCE_SQL = (
    "INSERT INTO jobs (id, name, kwargs, organization_id, queue, cause, correlation_id, due_at,"
    " ring_at, object_key) SELECT s.id, %(name)s, s.kwargs::jsonb, s.organization_id, %(queue)s,"
    " %(cause)s, %(correlation_id)s, clock_timestamp() + make_interval(secs => %(delay)s),"
    " clock_timestamp() + make_interval(secs => %(ring)s), s.object_key"
    " FROM unnest(%(ids)s::text[], %(kwargs)s::text[], %(organizations)s::text[],"
    " %(keys)s::text[]) AS s (id, kwargs, organization_id, object_key) ORDER BY s.object_key"
    " ON CONFLICT (object_key)"
    " WHERE object_key IS NOT NULL AND ring_at IS NOT NULL AND lease_until IS NULL"
    " DO UPDATE SET due_at = least(jobs.due_at, excluded.due_at),"
    " ring_at = least(jobs.ring_at, excluded.ring_at),"
    " organization_id = coalesce(jobs.organization_id, excluded.organization_id)"
    " RETURNING id, object_key"
)

#: Keys in `Session.info`: the jobs staged so far, and the cause of the jobs.
_STAGED_KEY = "holdfast.staged"
_CAUSE_KEY = "holdfast.cause"


@dataclass(frozen=True)
class Staged:
    """A staged job that workers must be notified of: its id, name and queue."""

    job_id: str
    name: str
    queue: str


@dataclass(frozen=True)
class Cause:
    """The cause of a job, and the correlation id of its webhook or command."""

    cause: str | None
    correlation_id: str


def set_cause(session: Session, cause: Cause) -> None:
    """Set the cause of all jobs that this session's transaction stages."""
    session.info[_CAUSE_KEY] = cause


def staged_in(session: Session) -> list[Staged]:
    """List the jobs that this session has staged so far and that are due at once."""
    staged: list[Staged] = session.info.get(_STAGED_KEY, [])
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
    """Stage a job in the caller's transaction and return its id.

    The job is due `delay_seconds` from now, by the database's clock. With 0, workers are notified
    as soon as the transaction is committed.
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
    """Stage several jobs of one name, each given as organization id and arguments.

    Returns their ids. `delay_seconds` is as in `insert`.
    """
    if not many:
        return []
    # All jobs of this transaction share one correlation id.
    cause: Cause = session.info.setdefault(_CAUSE_KEY, Cause(None, new_id("cor")))
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
            "ring": float(delay_seconds or FIRST_NOTIFICATION_SECONDS),
        }
        for organization_id, kwargs in many
    ]
    session.connection().exec_driver_sql(_STAGE_SQL, rows if len(rows) > 1 else rows[0])
    if not delay_seconds:
        for row in rows:
            notify_after_commit(session, Staged(str(row["id"]), name, queue))
    return [str(row["id"]) for row in rows]


def insert_once(
    session: Session,
    *,
    name: str,
    queue: str,
    many: Sequence[tuple[str, str | None, dict[str, Any]]],
    delay_seconds: float = 0,
) -> list[str]:
    """Stage jobs of one name, each given as object key, organization id and arguments.

    If a job already waits for the same object, that job becomes due earlier and no other is staged.
    A job that a worker has leased does not count as waiting. Return one id for each key, in the
    order of the keys. `delay_seconds` is as in `insert`. This function locks the rows of waiting
    jobs, so the caller must have taken all its other locks before.
    """
    if not many:
        return []
    cause: Cause = session.info.setdefault(_CAUSE_KEY, Cause(None, new_id("cor")))
    by_key = {key: (organization_id, kwargs) for key, organization_id, kwargs in many}
    rows = session.connection().exec_driver_sql(
        _STAGE_ONCE_SQL,
        {
            "name": name,
            "queue": queue,
            "cause": cause.cause,
            "correlation_id": cause.correlation_id,
            "delay": float(delay_seconds),
            "ring": float(delay_seconds or FIRST_NOTIFICATION_SECONDS),
            "ids": [new_id("job") for _ in by_key],
            "kwargs": [json.dumps(kwargs) for _, kwargs in by_key.values()],
            "organizations": [organization_id for organization_id, _ in by_key.values()],
            "keys": list(by_key),
        },
    )
    ids = {row.object_key: str(row.id) for row in rows}
    if not delay_seconds:
        for job_id in ids.values():
            notify_after_commit(session, Staged(job_id, name, queue))
    return [ids[key] for key, _, _ in many]


def open_arguments(session: Session, name: str) -> list[dict[str, Any]]:
    """List the arguments of the jobs of this name that are neither over nor dead."""
    rows = session.execute(
        # Only open jobs have `ring_at`, and the index contains only these.
        text("SELECT kwargs FROM jobs WHERE name = :name AND ring_at IS NOT NULL"),
        {"name": name},
    )
    return [row.kwargs for row in rows]


def notify_after_commit(session: Session, staged: Staged) -> None:
    """Notify workers of a job once this session's transaction is committed."""
    session.info.setdefault(_STAGED_KEY, []).append(staged)
