"""Checks of subaccounts: which are due, and what came of those that were staged.

A check reads what a subaccount's state is at Twilio. What is out of line is repaired, or told to a
person, by the job that it stages (see twilio_state).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from base.enums import TwilioStatus
from db.locks import OrganizationNotFound
from db.models import Brand, Job, Organization
from domain.jobs.staging import stage_many
from domain.jobs.types import CHECK_SUBACCOUNT, CONVERGE_TWILIO

#: A subaccount is checked again after so long: with some hours to spare, once a day.
CHECKED_EVERY = timedelta(hours=20)
#: Ticks of the schedule, every five minutes, in which every subaccount gets its turn.
_TICKS_FOR_ALL = 200
#: Checks of one tick at least, so that a few brands are not spread over a day for nothing.
_CHECKS_MIN = 20


class CheckOutcome(StrEnum):
    """What a check came to."""

    #: Twilio's state is the desired one.
    IN_LINE = "in_line"
    #: It was another one, and was set to the desired one.
    REPAIRED = "repaired"
    #: It cannot be set: missing, closed, or suspended by Twilio itself. A person must act.
    NEEDS_PERSON = "needs_person"
    #: No worker has read it yet, Twilio does not answer, or a lost request may still land.
    PENDING = "pending"


@dataclass(frozen=True)
class SubaccountCheck:
    """One brand's subaccount, and what a check found and did."""

    organization_id: str
    brand_id: str
    subaccount: str
    outcome: CheckOutcome
    desired: str
    #: The state found before anything was changed; None while no check has read it.
    found: str | None
    problem: str | None


def stage_due_checks(session: Session, now: datetime) -> int:
    """Stage the checks of this tick's share of the brands, those unchecked for longest first.

    Return how many. Replay: a brand whose check was staged is not due for CHECKED_EVERY.
    """
    with_subaccount = Brand.twilio_subaccount_sid.is_not(None)
    total = session.scalar(select(func.count()).select_from(Brand).where(with_subaccount)) or 0
    due = session.scalars(
        select(Brand)
        .where(
            with_subaccount,
            or_(Brand.twilio_checked_at.is_(None), Brand.twilio_checked_at < now - CHECKED_EVERY),
        )
        .order_by(Brand.twilio_checked_at.nulls_first(), Brand.id)
        .limit(max(_CHECKS_MIN, -(-total // _TICKS_FOR_ALL)))
        # A brand whose row is locked is being worked at: the next tick takes it.
        .with_for_update(key_share=True, skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    for brand in due:
        brand.twilio_checked_at = now
    _stage(session, due)
    return len(due)


def stage_checks(session: Session, organization_id: str | None, now: datetime) -> dict[str, str]:
    """Stage a check of every subaccount now, or of one organization's; return jobs by brand.

    Raises: OrganizationNotFound.
    """
    if organization_id is not None and session.get(Organization, organization_id) is None:
        raise OrganizationNotFound(organization_id)
    wanted = select(Brand).where(Brand.twilio_subaccount_sid.is_not(None)).order_by(Brand.id)
    if organization_id is not None:
        wanted = wanted.where(Brand.organization_id == organization_id)
    return _stage(session, session.scalars(wanted).all())


def _stage(session: Session, brands: Collection[Brand]) -> dict[str, str]:
    ids = stage_many(
        session,
        CHECK_SUBACCOUNT,
        [(brand.organization_id, {"brand_id": brand.id}) for brand in brands],
    )
    return {brand.id: job_id for brand, job_id in zip(brands, ids, strict=True)}


def results(session: Session, job_ids: Collection[str]) -> list[SubaccountCheck]:
    """Tell what came of staged checks, with the repairs that they staged themselves."""
    correlations = session.scalars(
        select(Job.correlation_id).where(Job.id.in_(job_ids)).distinct()
    ).all()
    jobs = session.scalars(
        select(Job)
        .where(
            Job.correlation_id.in_(correlations),
            Job.name.in_((CONVERGE_TWILIO.name, CHECK_SUBACCOUNT.name)),
        )
        .order_by(Job.id)
        .execution_options(populate_existing=True)
    )
    of_brand: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        of_brand[job.kwargs["brand_id"]].append(job)
    brands = session.scalars(
        select(Brand)
        .where(Brand.id.in_(of_brand), Brand.twilio_subaccount_sid.is_not(None))
        .order_by(Brand.organization_id, Brand.id)
        .execution_options(populate_existing=True)
    )
    return [_result(brand, of_brand[brand.id]) for brand in brands]


def _result(brand: Brand, jobs: list[Job]) -> SubaccountCheck:
    found_at, began_at = brand.twilio_found_at, jobs[0].staged_at
    found = brand.twilio_found if found_at is not None and found_at >= began_at else None
    return SubaccountCheck(
        brand.organization_id,
        brand.id,
        str(brand.twilio_subaccount_sid),
        _outcome(brand, jobs, found),
        brand.twilio_desired,
        found or brand.twilio_actual,
        brand.twilio_problem,
    )


def _outcome(brand: Brand, jobs: list[Job], found: str | None) -> CheckOutcome:
    if any(job.ring_at is not None for job in jobs):
        return CheckOutcome.PENDING
    unusable = brand.twilio_actual in (TwilioStatus.ABSENT, TwilioStatus.CLOSED)
    if jobs[-1].outcome != "done" or brand.twilio_problem or unusable:
        return CheckOutcome.NEEDS_PERSON
    if found is None or brand.twilio_actual != brand.twilio_desired:
        return CheckOutcome.PENDING
    return CheckOutcome.IN_LINE if found == brand.twilio_desired else CheckOutcome.REPAIRED
