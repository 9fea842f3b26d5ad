"""Stage declared jobs in the transaction that makes them necessary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256

from sqlalchemy.orm import Session

from base.enums import Queue
from db.jobs import staging
from domain.jobs.declaration import JobType

#: Longest key of an object, in characters.
_KEY_LENGTH_MAX = 300


def stage(
    session: Session,
    job: JobType,
    organization_id: str | None,
    /,
    *,
    queue: Queue | None = None,
    delay_seconds: float = 0,
    **arguments: str,
) -> str:
    """Stage a job in the caller's transaction and return its id.

    The job reaches a worker only after the commit. If a refresh of the same object is waiting, that
    job is brought forward instead, and its id is returned. Bringing it forward locks its row, so
    call this function after taking all other locks. Raises: TypeError if the arguments are not the
    declared ones, which is a bug.
    """
    _check_arguments(job, arguments)
    if job.refreshes:
        (job_id,) = staging.insert_once(
            session,
            name=job.name,
            queue=str(queue or job.queue),
            many=[(_object_key(job, arguments, queue), organization_id, dict(arguments))],
            delay_seconds=delay_seconds,
        )
        return job_id
    return staging.insert(
        session,
        name=job.name,
        queue=str(queue or job.queue),
        kwargs=dict(arguments),
        organization_id=organization_id,
        delay_seconds=delay_seconds,
    )


def stage_many(
    session: Session, job: JobType, many: Sequence[tuple[str | None, dict[str, str]]], /
) -> list[str]:
    """Stage jobs of one kind at once, each given as an organization and arguments.

    Raises: TypeError, as `stage` does.
    """
    for _, arguments in many:
        _check_arguments(job, arguments)
    if job.refreshes:
        keyed = [(_object_key(job, arguments), org, arguments) for org, arguments in many]
        return staging.insert_once(session, name=job.name, queue=str(job.queue), many=keyed)
    return staging.insert_many(session, name=job.name, queue=str(job.queue), many=many)


def open_arguments(session: Session, job: JobType) -> set[tuple[str, ...]]:
    """Return the arguments of one kind's jobs that are neither done nor dead.

    The arguments are in declared order.
    """
    found = staging.open_arguments(session, job.name)
    return {tuple(kwargs[name] for name in job.arguments) for kwargs in found}


def _object_key(job: JobType, arguments: Mapping[str, str], queue: Queue | None = None) -> str:
    """Return the key of the object that a job refreshes.

    If the key is too long, a digest replaces it. A job in another queue than its default has a
    separate key, so that an urgent job never waits for one that is not urgent.
    """
    values = [arguments[name] for name in job.arguments]
    named = json.dumps([job.name, *([queue] if queue else []), *values])
    if len(named) <= _KEY_LENGTH_MAX:
        return named
    return f"{job.name} {sha256(named.encode()).hexdigest()}"


def _check_arguments(job: JobType, arguments: Mapping[str, str]) -> None:
    if set(arguments) != set(job.arguments):
        raise TypeError(f"{job.name} takes {job.arguments}, not {tuple(arguments)}")
