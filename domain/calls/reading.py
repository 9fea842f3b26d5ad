"""Calls as they are read: by any of their ids, in pages, and what they cost by day.

Reads only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from sqlalchemy import Date, cast, func, or_, select, tuple_
from sqlalchemy.orm import Session

from base.enums import CallStatus
from db.call_models import Call, CallTimeline
from db.models import CallHold

#: Calls on one page, and days of one report, at most.
PAGE_MAX = 500
DAYS_MAX = 400


@dataclass(frozen=True)
class CostsOfDay:
    """What the calls of one day (UTC, by when they were let in) came to."""

    organization_id: str
    day: date
    currency: str
    calls: int
    seconds: int
    cost_micros: int
    #: What the provider charges us for them, in micros of a US dollar.
    provider_cost_micros: int


@dataclass(frozen=True)
class CallSeen:
    """One call with its hold and what happened to it."""

    call: Call
    hold: CallHold | None
    timeline: list[CallTimeline]


def find_call(session: Session, any_id: str, organization_id: str | None = None) -> Call | None:
    """This function will give the newest call that has this id: ours, Vapi's or Twilio's, or whose
    appointment it is."""
    statement = select(Call).where(
        or_(
            Call.id == any_id,
            Call.provider_call_id == any_id,
            Call.twilio_call_sid == any_id,
            Call.appointment_id == any_id,
        )
    )
    if organization_id is not None:
        statement = statement.where(Call.organization_id == organization_id)
    return session.scalars(
        statement.order_by(Call.created_at.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).one_or_none()


def see_call(session: Session, call: Call) -> CallSeen:
    """This function will give a call with its hold and its timeline."""
    key = (call.organization_id, call.id)
    timeline = session.scalars(
        select(CallTimeline)
        .where(tuple_(CallTimeline.organization_id, CallTimeline.call_id) == key)
        .order_by(CallTimeline.id)
    )
    return CallSeen(call, session.get(CallHold, key, populate_existing=True), list(timeline))


def list_calls(
    session: Session,
    *,
    organization_id: str | None = None,
    live: bool = True,
    unsettled: bool = False,
    since: datetime | None = None,
    after: Call | None = None,
    limit: int = PAGE_MAX,
) -> Sequence[Call]:
    """This function will give calls, the newest first; `after` is the last of the page before."""
    statement = select(Call).order_by(Call.created_at.desc(), Call.organization_id, Call.id)
    if live:
        statement = statement.where(Call.status != CallStatus.ENDED, Call.settled_at.is_(None))
    if unsettled:
        statement = statement.where(Call.settled_at.is_(None))
    if organization_id is not None:
        statement = statement.where(Call.organization_id == organization_id)
    if since is not None:
        statement = statement.where(Call.created_at >= since)
    if after is not None:
        statement = statement.where(
            or_(
                Call.created_at < after.created_at,
                (Call.created_at == after.created_at)
                & (tuple_(Call.organization_id, Call.id) > tuple_(after.organization_id, after.id)),
            )
        )
    return session.scalars(
        statement.limit(min(limit, PAGE_MAX)).execution_options(populate_existing=True)
    ).all()


def costs_by_day(
    session: Session,
    *,
    organization_id: str | None = None,
    first_day: date,
    last_day: date,
) -> list[CostsOfDay]:
    """This function will add up the settled calls of each organization and day, the oldest first.

    Bounds: DAYS_MAX days. Both days are counted.
    """
    day = cast(func.timezone("UTC", Call.created_at), Date)
    statement = (
        select(
            Call.organization_id,
            day,
            Call.currency,
            func.count(),
            func.coalesce(func.sum(Call.duration_ms), 0),
            func.sum(Call.cost_micros),
            func.coalesce(func.sum(Call.provider_cost_micros), 0),
        )
        .where(
            Call.created_at >= datetime.combine(first_day, time.min, UTC),
            Call.created_at <= datetime.combine(last_day, time.max, UTC),
            Call.settled_at.is_not(None),
        )
        .group_by(Call.organization_id, day, Call.currency)
        .order_by(day, Call.organization_id)
    )
    if organization_id is not None:
        statement = statement.where(Call.organization_id == organization_id)
    return [
        CostsOfDay(
            organization_id=row[0],
            day=row[1],
            currency=row[2],
            calls=row[3],
            seconds=int(row[4] or 0) // 1000,
            cost_micros=int(row[5] or 0),
            provider_cost_micros=int(row[6] or 0),
        )
        for row in session.execute(statement)
    ]


def ending_ms(call: Call) -> tuple[int | None, int | None]:
    """This function will give how long after the decision to end a call it was told, and over."""
    if call.end_decided_at is None:
        return None, None
    return tuple(
        None if at is None else round((at - call.end_decided_at).total_seconds() * 1000)
        for at in (call.end_told_at, call.ended_seen_at)
    )  # type: ignore[return-value]  # two of them
