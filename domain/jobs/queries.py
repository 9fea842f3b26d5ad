"""Read jobs with their attempts and causes, and the schedules. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.jobs import search
from db.jobs.search import ACTIONS_BY_STATE, STATE, CausingEvent, Filters, FoundJob
from db.models import Job, JobAttempt, ScheduleRow
from domain.jobs.schedules import SCHEDULES
from domain.operator_queries import OperatorActionView, actions_on

#: How many of its newest attempts, and of its newest operator actions, are shown with a job.
_ROWS_SHOWN_MAX = 200


@dataclass(frozen=True)
class JobBrief:
    """A job by its name and state."""

    job_id: str
    job: str
    state: str


@dataclass(frozen=True)
class JobSummary:
    """One job in a list. `arguments` are those that its declaration names."""

    job_id: str
    job: str
    state: str
    queue: str
    organization_id: str | None
    arguments: Mapping[str, Any]
    failures: int
    next_notification_at: datetime | None
    error: str | None


@dataclass(frozen=True)
class AttemptView:
    """One attempt of a job."""

    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error: str | None
    traceback: str | None


@dataclass(frozen=True)
class JobView:
    """A job with its newest attempts, its causes, and what operators did and can do."""

    summary: JobSummary
    staged_at: datetime
    due_at: datetime
    lease_until: datetime | None
    worker: str | None
    done_at: datetime | None
    dead_at: datetime | None
    attempt: int
    postponements: int
    cause: str | None
    correlation_id: str
    event: CausingEvent | None
    possible_actions: tuple[str, ...]
    attempts: list[AttemptView]
    causes: list[JobBrief]
    related_jobs: list[JobBrief]
    operator_actions: list[OperatorActionView]


@dataclass(frozen=True)
class ScheduleView:
    """A schedule and its last job. The state "pruned" means that this job was deleted.

    `job` is None if this version does not know the schedule.
    """

    schedule: str
    job: str | None
    interval_seconds: int
    next_at: datetime
    last_at: datetime | None
    last_job_id: str | None
    last_job_state: str | None


def list_jobs(
    session: Session, filters: Filters, *, after: str | None = None, limit: int
) -> list[JobSummary]:
    """List jobs, newest first; `after` is the last id of the previous page.

    A page has at most search.PAGE_MAX jobs. Raises: UnboundedSearch.
    """
    rows = search.page(session, filters, after=after, limit=limit)
    return [_job_summary(row) for row in rows]


def read_job(session: Session, job_id: str) -> JobView | None:
    """Read a job with its attempts and causes; None if no job has this id."""
    row = search.find(session, job_id)
    if row is None:
        return None
    job = row.job
    family = search.family(session, job)
    return JobView(
        summary=_job_summary(row),
        staged_at=job.staged_at,
        due_at=job.due_at,
        lease_until=job.lease_until,
        worker=job.worker,
        done_at=job.done_at,
        dead_at=job.dead_at,
        attempt=job.attempt,
        postponements=job.postponements,
        cause=job.cause,
        correlation_id=job.correlation_id,
        event=family.event,
        possible_actions=ACTIONS_BY_STATE.get(row.state, ()),
        attempts=_attempt_views(session, job_id),
        causes=[_job_brief(cause) for cause in family.causes],
        related_jobs=[_job_brief(other) for other in family.others],
        operator_actions=actions_on(session, job_id, _ROWS_SHOWN_MAX),
    )


def list_schedules(session: Session) -> list[ScheduleView]:
    """List the schedules by name, each with the state of its last job."""
    job_names = {schedule.name: schedule.job.name for schedule in SCHEDULES}
    rows = session.execute(
        select(ScheduleRow, Job.id, STATE)
        .outerjoin(Job, Job.id == ScheduleRow.last_job_id)
        .order_by(ScheduleRow.name)
        .execution_options(populate_existing=True)
    )
    return [
        ScheduleView(
            row.name,
            job_names.get(row.name),
            row.every_seconds,
            row.next_at,
            row.last_at,
            row.last_job_id,
            "pruned" if row.last_job_id is not None and job_id is None else state,
        )
        for row, job_id, state in rows
    ]


def _attempt_views(session: Session, job_id: str) -> list[AttemptView]:
    rows = session.scalars(
        select(JobAttempt)
        .where(JobAttempt.job_id == job_id)
        .order_by(JobAttempt.attempt.desc())
        .limit(_ROWS_SHOWN_MAX)
    ).all()
    return [
        AttemptView(
            row.attempt,
            row.worker,
            row.started_at,
            row.ended_at,
            row.outcome,
            row.error,
            row.traceback,
        )
        for row in rows[::-1]
    ]


def _job_summary(row: FoundJob) -> JobSummary:
    job = row.job
    return JobSummary(
        job.id,
        job.name,
        row.state,
        job.queue,
        job.organization_id,
        job.kwargs,
        job.failures,
        job.ring_at,
        job.last_error,
    )


def _job_brief(row: FoundJob) -> JobBrief:
    return JobBrief(row.job.id, row.job.name, row.state)
