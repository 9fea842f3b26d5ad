"""Periodic work: which job is staged, and how often.

There is no scheduler process. Every relay ticks, and the lock on a schedule's row ensures that each
tick happens once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from base.ids import new_id
from db.jobs import schedules as rows
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
    rows.declare(session, {one.name: one.every_seconds for one in schedules})


def tick(session: Session, schedules: Iterable[Schedule] = SCHEDULES) -> list[str]:
    """Stage the job of each schedule that is due, and return the job ids.

    The same transaction sets the schedule's next time. A tick therefore happens once, however many
    relays call this function and whichever of them die. While the last job of a schedule is not
    over, its ticks stage no other.
    """
    known = {one.name: one for one in schedules}
    staged = []
    for name, is_free in rows.lock_due(session, list(known)):
        job_id = None
        if is_free:
            set_cause(session, Cause(f"schedule:{name}", new_id("cor")))
            job_id = stage(session, known[name].job, None)
            staged.append(job_id)
        rows.advance(session, name, every_seconds=known[name].every_seconds, job_id=job_id)
    return staged
