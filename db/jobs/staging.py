"""How a job comes to be owed: a row, inserted in the transaction that owes it, and its first bell.

A plain INSERT with a fresh id, so that nobody who holds a later lock waits here. Machinery time
only: every instant here is SQL's clock_timestamp().
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.ids import new_id

#: Seconds after staging at which the relay rings if the ringer's own push was lost.
_FIRST_RING_SECONDS = 2
# The driver's own, since every job passes here: SQLAlchemy's text would be half of its cost.
# Changes that wait in the session are not flushed by it.
_STAGE = (
    "INSERT INTO jobs (id, name, kwargs, organization_id, queue, cause, correlation_id, due_at,"
    " ring_at) VALUES (%(id)s, %(name)s, %(kwargs)s::jsonb, %(organization_id)s, %(queue)s,"
    " %(cause)s, %(correlation_id)s, clock_timestamp() + make_interval(secs => %(delay)s),"
    " clock_timestamp() + make_interval(secs => %(ring)s))"
)
# A job that waits for the same object is brought forward instead. Its row stays locked until the
# caller's commit, so that no worker begins to read before what the caller has written is seen.
_STAGE_ONCE = (
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


def insert_once(
    session: Session,
    *,
    name: str,
    queue: str,
    many: Sequence[tuple[str, str | None, dict[str, Any]]],
    delay_seconds: float = 0,
) -> list[str]:
    """Stage jobs of one name, each an object's key, an organization and arguments.

    A job that waits for the same object is brought forward instead of staging another; one that a
    worker has begun is not counted. Gives the ids in order, the same for the same key. Units: as
    for insert. Locks the rows of waiting jobs, so that it comes after all other locks.
    """
    if not many:
        return []
    cause: Cause = session.info.setdefault(_CAUSE, Cause(None, new_id("cor")))
    by_key = {key: (organization_id, kwargs) for key, organization_id, kwargs in many}
    rows = session.connection().exec_driver_sql(
        _STAGE_ONCE,
        {
            "name": name,
            "queue": queue,
            "cause": cause.cause,
            "correlation_id": cause.correlation_id,
            "delay": float(delay_seconds),
            "ring": float(delay_seconds or _FIRST_RING_SECONDS),
            "ids": [new_id("job") for _ in by_key],
            "kwargs": [json.dumps(kwargs) for _, kwargs in by_key.values()],
            "organizations": [organization_id for organization_id, _ in by_key.values()],
            "keys": list(by_key),
        },
    )
    ids = {row.object_key: str(row.id) for row in rows}
    if not delay_seconds:
        for job_id in ids.values():
            ring_after_commit(session, Staged(job_id, name, queue))
    return [ids[key] for key, _, _ in many]


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
