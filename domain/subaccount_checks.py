"""Checks of subaccounts: stage the checks that are due, and report their results.

A check reads a subaccount's state at Twilio. If the state is not the desired one, the check stages
a job. That job repairs the subaccount or raises an alert (see domain/subaccounts.py).
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
from db.models import Brand, Job
from domain.jobs.staging import stage_many
from domain.jobs.types import CHECK_SUBACCOUNT, CONVERGE_TWILIO
from domain.organization_queries import require_organization

#: Time between two checks of a subaccount. It is some hours less than a day, so that every
#: subaccount is checked once a day.
CHECK_INTERVAL = timedelta(hours=20)
#: Number of ticks, one every five minutes, in which all subaccounts are checked once.
_TICKS_PER_ROUND = 200
#: Minimum number of checks in one tick. A few brands need not be spread over a day.
_CHECKS_PER_TICK_MIN = 20


class CheckOutcome(StrEnum):
    """The result of a check."""

    #: Twilio's state is the desired one.
    IN_LINE = "in_line"
    #: Twilio's state was not the desired one; a job set it.
    REPAIRED = "repaired"
    #: The state cannot be set: the subaccount is missing, closed, or suspended by Twilio. A person
    #: must act.
    NEEDS_PERSON = "needs_person"
    #: No worker has read the state yet, Twilio does not respond, or a lost request may still take
    #: effect.
    PENDING = "pending"


@dataclass(frozen=True)
class SubaccountCheck:
    """One brand's subaccount, with what the check found and did."""

    organization_id: str
    brand_id: str
    subaccount: str
    outcome: CheckOutcome
    desired: str
    #: The state that this check read, before anything was changed. Until then, the state that
    #: Twilio last reported; None if Twilio never reported a state.
    found: str | None
    problem: str | None


def stage_due_checks(session: Session, now: datetime) -> int:
    """Stage this tick's share of the due checks, and return their number.

    Brands that were checked longest ago come first. Replay: a brand whose check was staged is not
    due again for CHECK_INTERVAL.
    """
    with_subaccount = Brand.twilio_subaccount_sid.is_not(None)
    total = session.scalar(select(func.count()).select_from(Brand).where(with_subaccount)) or 0
    due_brands = session.scalars(
        select(Brand)
        .where(
            with_subaccount,
            or_(Brand.twilio_checked_at.is_(None), Brand.twilio_checked_at < now - CHECK_INTERVAL),
        )
        .order_by(Brand.twilio_checked_at.nulls_first(), Brand.id)
        .limit(max(_CHECKS_PER_TICK_MIN, -(-total // _TICKS_PER_ROUND)))
        # Another transaction is working on a brand whose row is locked. The next tick checks it.
        .with_for_update(key_share=True, skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    for brand in due_brands:
        brand.twilio_checked_at = now
    _stage_brand_checks(session, due_brands)
    return len(due_brands)


def stage_checks(session: Session, organization_id: str | None, now: datetime) -> dict[str, str]:
    """Stage a check of every subaccount now, or of one organization's subaccounts.

    Return the job ids by brand. Raises: OrganizationNotFound.
    """
    if organization_id is not None:
        require_organization(session, organization_id)
    query = select(Brand).where(Brand.twilio_subaccount_sid.is_not(None)).order_by(Brand.id)
    if organization_id is not None:
        query = query.where(Brand.organization_id == organization_id)
    return _stage_brand_checks(session, session.scalars(query).all())


def _stage_brand_checks(session: Session, brands: Collection[Brand]) -> dict[str, str]:
    ids = stage_many(
        session,
        CHECK_SUBACCOUNT,
        [(brand.organization_id, {"brand_id": brand.id}) for brand in brands],
    )
    return {brand.id: job_id for brand, job_id in zip(brands, ids, strict=True)}


def results(session: Session, job_ids: Collection[str]) -> list[SubaccountCheck]:
    """Report the results of staged checks, and of the repairs that the checks staged."""
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
    jobs_of_brand: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        jobs_of_brand[job.kwargs["brand_id"]].append(job)
    brands = session.scalars(
        select(Brand)
        .where(Brand.id.in_(jobs_of_brand), Brand.twilio_subaccount_sid.is_not(None))
        .order_by(Brand.organization_id, Brand.id)
        .execution_options(populate_existing=True)
    )
    return [_check_result(brand, jobs_of_brand[brand.id]) for brand in brands]


def _check_result(brand: Brand, jobs: list[Job]) -> SubaccountCheck:
    found_state_at, began_at = brand.twilio_found_at, jobs[0].staged_at
    found_state = (
        brand.twilio_found if found_state_at is not None and found_state_at >= began_at else None
    )
    return SubaccountCheck(
        brand.organization_id,
        brand.id,
        str(brand.twilio_subaccount_sid),
        _check_outcome(brand, jobs, found_state),
        brand.twilio_desired,
        found_state or brand.twilio_actual,
        brand.twilio_problem,
    )


def _check_outcome(brand: Brand, jobs: list[Job], found_state: str | None) -> CheckOutcome:
    if any(job.ring_at is not None for job in jobs):
        return CheckOutcome.PENDING
    is_unusable = brand.twilio_actual in (TwilioStatus.ABSENT, TwilioStatus.CLOSED)
    if jobs[-1].outcome != "done" or brand.twilio_problem or is_unusable:
        return CheckOutcome.NEEDS_PERSON
    if found_state is None or brand.twilio_actual != brand.twilio_desired:
        return CheckOutcome.PENDING
    return CheckOutcome.IN_LINE if found_state == brand.twilio_desired else CheckOutcome.REPAIRED
