"""Periodic work: which job is staged, and how often.

There is no scheduler process. Every relay ticks, and the lock on a schedule's row ensures that each
tick happens once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from base.ids import new_id
from db.jobs import schedules as schedule_rows
from db.jobs.staging import Cause, set_cause
from domain.jobs.declaration import JobType
from domain.jobs.staging import stage
from domain.jobs.types import PRUNE, RECONCILE_CALLS, RECONCILE_TWILIO


@dataclass(frozen=True)
class Schedule:
    """A job without arguments that is staged at a fixed interval.

    A schedule with a new name is a new schedule.
    """

    name: str
    every_seconds: int
    job: JobType


SCHEDULES: tuple[Schedule, ...] = (
    Schedule("prune", 3_600, PRUNE),
    Schedule("reconcile_calls", 15, RECONCILE_CALLS),
    # Each tick stages a share of the checks, so that they are spread over the day.
    Schedule("reconcile_twilio", 300, RECONCILE_TWILIO),
)


def declare(session: Session, schedules: Iterable[Schedule] = SCHEDULES) -> None:
    """Store the schedules of this process and delete outdated ones.

    A schedule that no relay has declared for ten minutes is deleted.
    """
    schedule_rows.declare(session, {each.name: each.every_seconds for each in schedules})


def tick(session: Session, schedules: Iterable[Schedule] = SCHEDULES) -> list[str]:
    """Stage the job of each schedule that is due, and return the job ids.

    The same transaction sets the schedule's next time. A tick therefore happens once, however many
    relays call this function and whichever of them die. A tick stages no job while the schedule's
    last job is not over.
    """
    by_name = {schedule.name: schedule for schedule in schedules}
    staged_ids = []
    for name, last_job_is_over in schedule_rows.lock_due(session, list(by_name)):
        job_id = None
        if last_job_is_over:
            set_cause(session, Cause(f"schedule:{name}", new_id("cor")))
            job_id = stage(session, by_name[name].job, None)
            staged_ids.append(job_id)
        schedule_rows.advance(
            session, name, every_seconds=by_name[name].every_seconds, job_id=job_id
        )
    return staged_ids
