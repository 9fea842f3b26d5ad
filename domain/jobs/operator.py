"""Operator actions on jobs: redrive, discard, run now; each is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy.orm import Session

from base.operators import Operator
from base.outcomes import Refused
from base.problems.operators import JOB_ACT_IMPOSSIBLE
from db.jobs import operator as job_operator
from domain.jobs.alerts import clear_job_alert
from domain.operator_notes import record_action

#: One of redrive_manually, discard_manually and run_now_manually.
JobAction = Callable[..., None]


class JobActImpossible(Refused):
    """The job is not in a state that allows this operation."""

    def __init__(self, job_id: str, detail: str) -> None:
        super().__init__(JOB_ACT_IMPOSSIBLE, f"{job_id} {detail}", job=job_id)


def redrive_manually(session: Session, job_id: str, *, operator: Operator, now: datetime) -> None:
    """Give a dead or refused job all of its attempts again, and notify a worker.

    The job's alert is cleared. Raises: JobActImpossible, also while another job waits to refresh
    the same object.
    """
    record_action(session, "job.redrive", job_id, operator=operator, now=now)
    if not job_operator.redrive(session, job_id):
        raise JobActImpossible(
            job_id, "is neither dead nor refused, or another job refreshes its object"
        )
    clear_job_alert(session, job_id, now)


def discard_manually(session: Session, job_id: str, *, operator: Operator, now: datetime) -> None:
    """End a dead job without doing its work, and clear its alert. It never runs again.

    Raises: JobActImpossible.
    """
    record_action(session, "job.discard", job_id, operator=operator, now=now)
    if not job_operator.discard(session, job_id):
        raise JobActImpossible(job_id, "is not a dead job")
    clear_job_alert(session, job_id, now)


def run_now_manually(session: Session, job_id: str, *, operator: Operator, now: datetime) -> None:
    """End a job's wait for its next attempt, and notify a worker.

    Raises: JobActImpossible if the job is over or a worker has leased it.
    """
    record_action(session, "job.run_now", job_id, operator=operator, now=now)
    if not job_operator.run_now(session, job_id):
        raise JobActImpossible(job_id, "does not wait: it is over, or a worker has it")


def act_on_many(
    session: Session,
    action: JobAction,
    job_ids: Iterable[str],
    *,
    operator: Operator,
    now: datetime,
) -> int:
    """Apply an operation to each job that allows it, and return how many it changed.

    The jobs are processed in the order of their ids, so that bulk operations of two operators do
    not deadlock.
    """
    changed_count = 0
    for job_id in sorted(job_ids):
        try:
            with session.begin_nested():
                action(session, job_id, operator=operator, now=now)
        except JobActImpossible:
            continue
        changed_count += 1
    return changed_count
