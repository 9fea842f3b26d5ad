"""Periodic work, declared once: what is staged how often.

There is no scheduler process: every relay ticks, and the row lets each tick happen once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from base.ids import new_id
from db.jobs import schedules as rows
from db.jobs.staging import Cause, set_cause
from domain.jobs.staging import stage
from domain.jobs.types import PRUNE, RECONCILE_CALLS, RECONCILE_TWILIO, JobType


@dataclass(frozen=True)
class Schedule:
    """A job without arguments that is staged every so often. Renamed, it is a new one."""

    name: str
    every_seconds: int
    job: JobType


SCHEDULES: tuple[Schedule, ...] = (
    Schedule("prune", 3_600, PRUNE),
    Schedule("reconcile_calls", 15, RECONCILE_CALLS),
    # Each tick takes a share of the brands, so that the checks of a day are spread out.
    Schedule("reconcile_twilio", 300, RECONCILE_TWILIO),
)


def declare(session: Session, schedules: Iterable[Schedule] = SCHEDULES) -> None:
    """This function will make rows of new schedules; what nobody declares any more goes."""
    rows.declare(session, {one.name: one.every_seconds for one in schedules})


def tick(session: Session, schedules: Iterable[Schedule] = SCHEDULES) -> list[str]:
    """This function will stage the job of each schedule that is due, and give the jobs' ids.

    The row is moved on in the same transaction, so that a tick happens once however many relays
    call this and whichever of them die. A tick whose last job is still owed stages no other.
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
