"""Read the operator actions that were recorded. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Text, cast, or_, select, true, union
from sqlalchemy.orm import Session, aliased

from base.ids import first_id
from db.models import Alert, Campaign, Job, OperatorAction
from db.models.calls import Call, EntryPoint

#: Largest number of actions on one page.
PAGE_MAX = 1_000
#: Many machines generate ids. Their clocks may differ by this much.
_CLOCK_DIFFERENCE_MAX = timedelta(hours=1)


@dataclass(frozen=True)
class OperatorActionView:
    """One operator action: the operator, the subject, the reason and the time."""

    id: str
    acted_at: datetime
    action: str
    subject: str
    by: str
    why: str


def list_actions(
    session: Session,
    *,
    organization_id: str | None = None,
    subject: str | None = None,
    by: str | None = None,
    since: datetime | None = None,
    after: str | None = None,
    limit: int,
) -> list[OperatorActionView]:
    """List operator actions, newest first, that meet every given condition.

    `organization_id` finds actions on the organization, and on its campaigns, calls, rates, entry
    points, alerts and jobs. An action on a job or an entry point is found only while that job or
    entry point still exists. `subject` is the beginning of a subject, or a call's id. `by` is the
    operator's exact name. `after` is the last id of the previous page. A page has at most PAGE_MAX
    actions, in the order of their ids. Actions that are added meanwhile do not move the following
    pages.
    """
    conditions: list[ColumnElement[bool]] = []
    if by is not None:
        conditions.append(OperatorAction.operator == by)
    if since is not None:
        # The id limits how many rows are read. The row's `acted_at` decides.
        conditions.append(OperatorAction.id >= first_id("act", since - _CLOCK_DIFFERENCE_MAX))
        conditions.append(OperatorAction.acted_at >= since)
    if after is not None:
        conditions.append(OperatorAction.id < after)
    branches: list[ColumnElement[bool]] = [true()]
    if subject is not None:
        branches = _conditions_for_subject(subject)
    if organization_id is not None:
        conditions += [or_(*branches)]
        branches = _conditions_for_organization(organization_id)
    size = min(limit, PAGE_MAX)
    # One query for each branch. With OR, PostgreSQL would not use the index of subjects.
    pages = [
        select(OperatorAction)
        .where(branch, *conditions)
        .order_by(OperatorAction.id.desc())
        .limit(size)
        .subquery()
        for branch in branches
    ]
    newest_actions = aliased(OperatorAction, union(*[select(page) for page in pages]).subquery())
    rows = session.scalars(select(newest_actions).order_by(newest_actions.id.desc()).limit(size))
    return [_view(row) for row in rows]


def actions_on(session: Session, subject: str, limit: int) -> list[OperatorActionView]:
    """List the newest operator actions on exactly this subject, oldest first."""
    rows = session.scalars(
        select(OperatorAction)
        .where(OperatorAction.subject == subject)
        .order_by(OperatorAction.id.desc())
        .limit(limit)
    ).all()
    return [_view(row) for row in rows[::-1]]


def _conditions_for_organization(organization_id: str) -> list[ColumnElement[bool]]:
    """Return conditions that together find the actions on an organization."""
    campaigns = select(Campaign.id).where(Campaign.organization_id == organization_id)
    alerts = select(cast(Alert.id, Text)).where(Alert.organization_id == organization_id)
    entry_points = select(EntryPoint.kind + " " + EntryPoint.external_id).where(
        EntryPoint.organization_id == organization_id
    )
    jobs = select(Job.id).where(Job.organization_id == organization_id)
    return [
        OperatorAction.subject == organization_id,
        # Rates and calls have as subject the organization's id, a space, and the route or call id.
        OperatorAction.subject.startswith(f"{organization_id} ", autoescape=True),
        OperatorAction.subject.in_(campaigns),
        OperatorAction.act.startswith("alert.") & OperatorAction.subject.in_(alerts),
        OperatorAction.subject.in_(entry_points),
        OperatorAction.act.startswith("job.") & OperatorAction.subject.in_(jobs),
    ]


def _conditions_for_subject(subject: str) -> list[ColumnElement[bool]]:
    calls = select(Call.organization_id + " " + Call.id).where(Call.id == subject)
    return [
        OperatorAction.subject.startswith(subject, autoescape=True),
        OperatorAction.subject.in_(calls),
    ]


def _view(row: OperatorAction) -> OperatorActionView:
    return OperatorActionView(row.id, row.acted_at, row.act, row.subject, row.operator, row.why)
