"""The record of operator actions: their names, reasons and notes, and the limits."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Text, cast, or_, select, true, union
from sqlalchemy.orm import Session, aliased

from base.ids import first_id, new_id
from base.outcomes import Refused
from db.models import Alert, Campaign, Job, OperatorAction
from db.models.calls import Call, EntryPoint

#: Longest note of an entry, name of an operator, and reason, in characters. The database checks the
#: same limits.
NOTE_LENGTH_MAX = 1_000
BY_LENGTH_MAX = 200
WHY_LENGTH_MAX = 500
#: Most actions on one page.
PAGE_MAX = 1_000
#: Many machines make ids. Their clocks may differ by this much.
_CLOCKS_APART = timedelta(hours=1)
#: Characters that PostgreSQL's text type cannot store: NUL and lone surrogates.
_ODD = re.compile("[\0\ud800-\udfff]")


class InvalidNote(Refused):
    """A note, name or reason is too long or has characters that cannot be stored."""

    def __init__(self, what: str, length_max: int) -> None:
        super().__init__("INVALID_NOTE", f"{what}: at most {length_max} characters and no NUL")


class WhoAndWhy(Refused):
    """An operator action lacks the operator's name or the reason."""

    def __init__(self) -> None:
        super().__init__("REASON_REQUIRED", "who and why must be given")


def check_note(note: str) -> None:
    """Refuse a note that an entry cannot store.

    Raises: InvalidNote.
    """
    _check("the note", note, NOTE_LENGTH_MAX)


def check_who_and_why(by: str, why: str) -> None:
    """Refuse a name or a reason that is blank or cannot be stored.

    Raises: WhoAndWhy, InvalidNote.
    """
    if not by.strip() or not why.strip():
        raise WhoAndWhy
    _check("who", by, BY_LENGTH_MAX)
    _check("why", why, WHY_LENGTH_MAX)


def record_action(
    session: Session, act: str, subject: str, *, by: str, why: str, now: datetime
) -> None:
    """Record an operator action for which no other table keeps a permanent row.

    Units: `act` is "kind.verb"; `subject` is the id of the object. The record commits or rolls back
    with the action. Raises: WhoAndWhy, InvalidNote.
    """
    check_who_and_why(by, why)
    session.add(
        OperatorAction(
            id=new_id("act"), act=act, subject=subject, operator=by, why=why, acted_at=now
        )
    )
    session.flush()


def list_actions(
    session: Session,
    *,
    organization_id: str | None = None,
    subject: str | None = None,
    by: str | None = None,
    since: datetime | None = None,
    after: str | None = None,
    limit: int,
) -> list[OperatorAction]:
    """List operator actions, newest first, that meet every given condition.

    `organization_id` finds actions on the organization, and on its campaigns, calls, rates, entry
    points, alerts and jobs. An action on a job or an entry point is found as long as that row
    exists. `subject` is the beginning of a subject, or a call's id. `by` is the operator's exact
    name. `after` is the last id of the previous page. A page has at most PAGE_MAX actions, in the
    order of their ids. Rows that are added meanwhile do not move the following pages.
    """
    conditions: list[ColumnElement[bool]] = []
    if by is not None:
        conditions.append(OperatorAction.operator == by)
    if since is not None:
        # The id limits how many rows are read. The row's `acted_at` decides.
        conditions.append(OperatorAction.id >= first_id("act", since - _CLOCKS_APART))
        conditions.append(OperatorAction.acted_at >= since)
    if after is not None:
        conditions.append(OperatorAction.id < after)
    branches: list[ColumnElement[bool]] = [true()]
    if subject is not None:
        branches = _of_subject(subject)
    if organization_id is not None:
        conditions += [or_(*branches)]
        branches = _of_organization(organization_id)
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
    found = aliased(OperatorAction, union(*[select(one) for one in pages]).subquery())
    return list(session.scalars(select(found).order_by(found.id.desc()).limit(size)))


def _of_organization(organization_id: str) -> list[ColumnElement[bool]]:
    """Return conditions that together find the actions on an organization."""
    campaigns = select(Campaign.id).where(Campaign.organization_id == organization_id)
    alerts = select(cast(Alert.id, Text)).where(Alert.organization_id == organization_id)
    entry_points = select(EntryPoint.kind + " " + EntryPoint.external_id).where(
        EntryPoint.organization_id == organization_id
    )
    jobs = select(Job.id).where(Job.organization_id == organization_id)
    return [
        OperatorAction.subject == organization_id,
        # Its rates and calls: the organization's id, a space, and a route or the call's id.
        OperatorAction.subject.startswith(f"{organization_id} ", autoescape=True),
        OperatorAction.subject.in_(campaigns),
        OperatorAction.act.startswith("alert.") & OperatorAction.subject.in_(alerts),
        OperatorAction.subject.in_(entry_points),
        OperatorAction.act.startswith("job.") & OperatorAction.subject.in_(jobs),
    ]


def _of_subject(text: str) -> list[ColumnElement[bool]]:
    calls = select(Call.organization_id + " " + Call.id).where(Call.id == text)
    return [
        OperatorAction.subject.startswith(text, autoescape=True),
        OperatorAction.subject.in_(calls),
    ]


def _check(what: str, given: str, length_max: int) -> None:
    if len(given) > length_max or _ODD.search(given):
        raise InvalidNote(what, length_max)
