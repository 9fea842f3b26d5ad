"""How jobs stand, and how they are found: the one place that says in which state a job is.

Reads only. Pages go by id, which is the order in which jobs were staged; the indexes are made for
what is open, dead or refused, and for one organization. Arguments and errors of all others have no
index, which every step of a job's life would pay for: such a search is bounded in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from base.ids import first_id
from base.outcomes import Refused
from db.models import InboxEvent, Job

#: Jobs on one page at most.
PAGE_MAX = 1_000
#: Jobs of one family that are listed at most.
_FAMILY_MAX = 200
#: Ids are made by many machines: how far their clocks may be apart.
_CLOCKS_APART = timedelta(hours=1)

_NOW = select(func.clock_timestamp()).scalar_subquery()
_OPEN = Job.ring_at.is_not(None)
_FREE = and_(_OPEN, Job.lease_until.is_(None))

#: Every state and what it means; each job is in exactly one.
STATES: Mapping[str, ColumnElement[bool]] = {
    # Due, and its bell has not been rung again by the relay.
    "staged": and_(_FREE, Job.due_at <= _NOW, Job.rings == 0),
    # Due, and rung by the relay: no worker has answered yet.
    "sent": and_(_FREE, Job.due_at <= _NOW, Job.rings > 0),
    # In a worker's hands under a lease. A job on our own database alone does not show it: it is
    # claimed, done and committed at once.
    "running": and_(_OPEN, Job.lease_until > _NOW),
    # Its worker's lease ran out: the next to claim it counts a failure.
    "abandoned": and_(_OPEN, Job.lease_until <= _NOW),
    # For its next attempt, or for the time it was staged for.
    "waiting": and_(_FREE, Job.due_at > _NOW),
    "done": Job.outcome == "done",
    "refused": Job.outcome == "refused",
    "discarded": Job.outcome == "discarded",
    "dead": Job.dead_at.is_not(None),
}
#: What may be asked for: a state, or all that is still owed.
ASKABLE: Mapping[str, ColumnElement[bool]] = {"open": _OPEN, **STATES}
#: What a person can do to a job in each state.
POSSIBLE: Mapping[str, tuple[str, ...]] = {
    "staged": ("run-now",),
    "sent": ("run-now",),
    "abandoned": ("run-now",),
    "waiting": ("run-now",),
    "refused": ("redrive",),
    "dead": ("redrive", "discard"),
}
_STATE = case(*((condition, name) for name, condition in STATES.items()))


class UnboundedSearch(Refused):
    """The search would read every job there ever was."""

    def __init__(self) -> None:
        super().__init__(
            "UNBOUNDED_SEARCH",
            "among finished jobs give a time from which on, or an organization",
        )


@dataclass(frozen=True)
class Found:
    """A job and the state it is in."""

    job: Job
    state: str


@dataclass(frozen=True)
class Family:
    """What a job comes from, oldest first, and what else came of the same beginning."""

    event: InboxEvent | None
    causes: list[Found]
    others: list[Found]


@dataclass(frozen=True)
class Filters:
    """Which jobs; all that is given must hold.

    `error` is any part of the last error, in any case; `arguments` are pairs the job was staged
    with; `since` and `until` bound when it was staged, the second not included.
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
        """This function will give what a job must fulfil. Raises: UnboundedSearch."""
        seeks = self.name or self.queue or self.error or self.arguments
        bounded = self.organization_id or self.since
        if seeks and not bounded and self.state in (None, "done"):
            raise UnboundedSearch
        found: list[ColumnElement[bool]] = []
        if self.state:
            found.append(ASKABLE[self.state])
        if self.name:
            found.append(Job.name == self.name)
        if self.organization_id:
            found.append(Job.organization_id == self.organization_id)
        if self.queue:
            found.append(Job.queue == self.queue)
        if self.error:
            found.append(Job.last_error.icontains(self.error, autoescape=True))
        if self.arguments:
            found.append(Job.kwargs.contains(dict(self.arguments)))
        if self.since:
            # The id bounds what is read; the row's own instant decides.
            found += [Job.id >= first_id("job", self.since - _CLOCKS_APART)]
            found += [Job.staged_at >= self.since]
        if self.until:
            found += [Job.id < first_id("job", self.until + _CLOCKS_APART)]
            found += [Job.staged_at < self.until]
        return found


def page(
    session: Session, filters: Filters, *, after: str | None = None, limit: int
) -> list[Found]:
    """This function will list jobs, newest first; `after` is the last id of the page before.

    Raises: UnboundedSearch.
    """
    query = select(Job, _STATE).where(*filters.conditions())
    if after is not None:
        query = query.where(Job.id < after)
    rows = session.execute(query.order_by(Job.id.desc()).limit(min(limit, PAGE_MAX)))
    return [Found(job, state) for job, state in rows]


def find(session: Session, job_id: str) -> Found | None:
    """This function will read one job and its state; None if there is none, or none any more."""
    row: Any = session.execute(select(Job, _STATE).where(Job.id == job_id)).one_or_none()
    return None if row is None else Found(row[0], row[1])


def family(session: Session, job: Job) -> Family:
    """This function will follow a job's causes up to the event or act it began with.

    A cause that was pruned ends the chain; the newest 200 others of the same beginning are given.
    """
    causes: list[Found] = []
    cause = job.cause
    while cause is not None and len(causes) < _FAMILY_MAX:
        found = find(session, cause)
        if found is None:
            break
        causes.insert(0, found)
        cause = found.job.cause
    event = session.get(InboxEvent, cause) if cause is not None else None
    known = {job.id, *(one.job.id for one in causes)}
    rows = session.execute(
        select(Job, _STATE)
        .where(Job.correlation_id == job.correlation_id)
        .order_by(Job.id.desc())
        .limit(_FAMILY_MAX)
    )
    others = [Found(one, state) for one, state in rows if one.id not in known]
    return Family(event, causes, others[::-1])
