"""Search jobs, and define the states that a job can be in. This module only reads.

Pages are ordered by id, which is the order of staging. Indexes serve searches for open, dead,
refused or discarded jobs, and for one organization. Names, arguments and errors have no index,
because every step of a job would have to maintain it. A search of finished jobs by name, argument
or error therefore needs a start time or an organization.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, literal, select
from sqlalchemy.orm import Session

from base.ids import first_id
from base.outcomes import Refused
from base.problems.operators import UNBOUNDED_SEARCH
from db.models import InboxEvent, Job

#: Largest number of jobs on one page.
PAGE_MAX = 1_000
#: Largest number of jobs of one family that are listed.
_FAMILY_JOBS_MAX = 200
#: Ids contain the time of the machine that made them. The machines' clocks may differ by this much.
_CLOCK_DIFFERENCE_MAX = timedelta(hours=1)

_NOW = select(func.clock_timestamp()).scalar_subquery()
_IS_OPEN = Job.ring_at.is_not(None)
_IS_OPEN_AND_UNLEASED = and_(_IS_OPEN, Job.lease_until.is_(None))

#: All states with their conditions. Each job is in exactly one state.
STATES: Mapping[str, ColumnElement[bool]] = {
    # Due, and the relay has not repeated the notification.
    "staged": and_(_IS_OPEN_AND_UNLEASED, Job.due_at <= _NOW, Job.rings == 0),
    # Due, and the relay has repeated the notification, but no claim is committed.
    "sent": and_(_IS_OPEN_AND_UNLEASED, Job.due_at <= _NOW, Job.rings > 0),
    # Leased by a worker. A job that only changes the database is never shown as running, because
    # it is claimed and finished in one transaction.
    "running": and_(_IS_OPEN, Job.lease_until > _NOW),
    # The lease ran out without an outcome. The next claim counts one failure.
    "abandoned": and_(_IS_OPEN, Job.lease_until <= _NOW),
    # Waits for its next attempt, or for the time that it was staged for.
    "waiting": and_(_IS_OPEN_AND_UNLEASED, Job.due_at > _NOW),
    "done": Job.outcome == "done",
    "refused": Job.outcome == "refused",
    "discarded": Job.outcome == "discarded",
    "dead": Job.dead_at.is_not(None),
}
#: States that a search accepts. `open` covers every job that is neither over nor dead.
SEARCHABLE_STATES: Mapping[str, ColumnElement[bool]] = {"open": _IS_OPEN, **STATES}
#: The operator actions that each state allows.
ACTIONS_BY_STATE: Mapping[str, tuple[str, ...]] = {
    "staged": ("run-now",),
    "sent": ("run-now",),
    "abandoned": ("run-now",),
    "waiting": ("run-now",),
    "refused": ("redrive",),
    "dead": ("redrive", "discard"),
}
#: The state of a job, as a column.
STATE = case(*((condition, name) for name, condition in STATES.items()))


class UnboundedSearch(Refused):
    """The search would read every job in the table."""

    def __init__(self) -> None:
        super().__init__(
            UNBOUNDED_SEARCH,
            "This search would read every finished job. Give a start time or an organization.",
        )


@dataclass(frozen=True)
class FoundJob:
    """A job and its state."""

    job: Job
    state: str


@dataclass(frozen=True)
class CausingEvent:
    """The inbox event that led to a job."""

    inbox_event_id: str
    source: str
    event_type: str
    external_id: str


@dataclass(frozen=True)
class Family:
    """A job's event and causes, oldest first, and other jobs with its correlation id."""

    event: CausingEvent | None
    causes: list[FoundJob]
    others: list[FoundJob]


@dataclass(frozen=True)
class Filters:
    """The conditions of a search. A job must meet all that are given.

    `error` is a part of the last error, in upper or lower case. `arguments` are argument names and
    values of the job. `since` and `until` bound the staging time; `until` itself is excluded.
    """

    state: str | None = None
    name: str | None = None
    organization_id: str | None = None
    queue: str | None = None
    error: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Build the SQL conditions of this search. Raises: UnboundedSearch."""
        is_filtered = self.name or self.queue or self.error or self.arguments
        is_bounded = self.organization_id or self.since
        if is_filtered and not is_bounded and self.state in (None, "done"):
            raise UnboundedSearch
        conditions: list[ColumnElement[bool]] = []
        if self.state:
            conditions.append(SEARCHABLE_STATES[self.state])
        if self.name:
            conditions.append(Job.name == self.name)
        if self.organization_id:
            conditions.append(Job.organization_id == self.organization_id)
        if self.queue:
            conditions.append(Job.queue == self.queue)
        if self.error:
            conditions.append(Job.last_error.icontains(self.error, autoescape=True))
        if self.arguments:
            conditions.append(Job.kwargs.contains(dict(self.arguments)))
        if self.since:
            # The id limits how many rows are read. The row's `staged_at` decides.
            conditions += [Job.id >= first_id("job", self.since - _CLOCK_DIFFERENCE_MAX)]
            conditions += [Job.staged_at >= self.since]
        if self.until:
            conditions += [Job.id < first_id("job", self.until + _CLOCK_DIFFERENCE_MAX)]
            conditions += [Job.staged_at < self.until]
        return conditions


def page(
    session: Session, filters: Filters, *, after: str | None = None, limit: int
) -> list[FoundJob]:
    """List jobs, newest first; `after` is the last id of the previous page.

    A page has at most PAGE_MAX jobs. Raises: UnboundedSearch.
    """
    query = select(Job, STATE).where(*filters.conditions())
    if after is not None:
        query = query.where(Job.id < after)
    rows = session.execute(query.order_by(Job.id.desc()).limit(min(limit, PAGE_MAX)))
    return [FoundJob(job, state) for job, state in rows]


def find(session: Session, job_id: str) -> FoundJob | None:
    """Read one job and its state; return None if it does not exist or was pruned."""
    row: Any = session.execute(select(Job, STATE).where(Job.id == job_id)).one_or_none()
    return None if row is None else FoundJob(row[0], row[1])


def family(session: Session, job: Job) -> Family:
    """Follow a job's causes back to the inbox event or operator action at their start.

    A pruned cause ends the chain. `others` lists further jobs among the newest 200 with the same
    correlation id.
    """
    causes = _read_causes(session, job)
    first = causes[0].job.cause if causes else job.cause
    event = session.execute(
        select(
            InboxEvent.id, InboxEvent.source, InboxEvent.event_type, InboxEvent.external_id
        ).where(InboxEvent.id == first)
    ).one_or_none()
    known = {job.id, *(cause.job.id for cause in causes)}
    rows = session.execute(
        select(Job, STATE)
        .where(Job.correlation_id == job.correlation_id)
        .order_by(Job.id.desc())
        .limit(_FAMILY_JOBS_MAX)
    )
    others = [FoundJob(other, state) for other, state in rows if other.id not in known]
    return Family(None if event is None else CausingEvent(*event), causes, others[::-1])


def _read_causes(session: Session, job: Job) -> list[FoundJob]:
    """Read the chain of jobs that led to a job, oldest first, in one statement."""
    distance = literal(1).label("distance")
    chain = select(Job.id, Job.cause, distance).where(Job.id == job.cause).cte(recursive=True)
    chain = chain.union_all(
        select(Job.id, Job.cause, chain.c.distance + 1).where(
            Job.id == chain.c.cause, chain.c.distance < _FAMILY_JOBS_MAX
        )
    )
    rows = session.execute(
        select(Job, STATE).join(chain, chain.c.id == Job.id).order_by(chain.c.distance.desc())
    )
    return [FoundJob(cause, state) for cause, state in rows]
