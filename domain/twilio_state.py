"""A brand's subaccount: desired state with a generation, brought about by one hand at a time.

A late retry of an old suspend, or a lost request that lands late, can never stand against a newer
reactivation: whoever acts reads what is desired now, and while a lost request may still land, the
subaccount is read again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.ids import new_id
from base.outcomes import NotYet
from db.locks import BrandNotFound, lock_brand
from db.models import Brand
from domain.jobs import CONVERGE_TWILIO, stage

#: Seconds until a brand in somebody else's hands is tried again.
_TAKEN_WAIT_SECONDS = 1.0
#: The states a subaccount can be taken into and out of; the others need a person.
CHANGEABLE = (TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED)


@dataclass(frozen=True)
class Hand:
    """The lease on one subaccount, and what is desired of it as of now."""

    brand_id: str
    sid: str
    token: str
    desired: TwilioStatus
    generation: int


def take(session: Session, brand_id: str, *, lease_seconds: float, unsure_seconds: float) -> Hand:
    """This function will take the lease on a brand's subaccount.

    A lease that ran out without being given back means that its holder died or was cut off, perhaps
    with a request on its way: until `unsure_seconds` from now that request may still land.
    Raises: NotYet while another hand holds it; BrandNotFound.
    """
    brand = lock_brand(session, brand_id)
    if brand is None or brand.twilio_subaccount_sid is None:
        raise BrandNotFound(brand_id)
    token = new_id("lse")
    taken = session.execute(
        text(
            "UPDATE brands SET twilio_lease_token = :token,"
            " twilio_lease_until = clock_timestamp() + make_interval(secs => :lease),"
            " twilio_unsure_until = CASE WHEN twilio_lease_token IS NULL THEN twilio_unsure_until"
            " ELSE clock_timestamp() + make_interval(secs => :unsure) END"
            " WHERE id = :id"
            " AND (twilio_lease_until IS NULL OR twilio_lease_until <= clock_timestamp())"
            " RETURNING 1"
        ),
        {"token": token, "lease": lease_seconds, "unsure": unsure_seconds, "id": brand_id},
    ).one_or_none()
    if taken is None:
        raise NotYet("another hand is at this subaccount", _TAKEN_WAIT_SECONDS)
    return Hand(
        brand_id,
        brand.twilio_subaccount_sid,
        token,
        TwilioStatus(brand.twilio_desired),
        brand.twilio_generation,
    )


def record(
    session: Session,
    hand: Hand,
    facts: SubaccountFacts,
    now: datetime,
    *,
    sent_unsure_seconds: float | None = None,
) -> Hand | None:
    """This function will store what Twilio said, and tell what is desired now if that moved.

    None: the state is what is desired, or the lease is no longer ours. A Hand: go round again.
    What Twilio said is stored under our token only, because another hand's word is newer. Where we
    sent a request and lost the lease meanwhile, it may have undone the other's work: the subaccount
    is unsure for `sent_unsure_seconds`, and a job reads it again.
    """
    brand = lock_brand(session, hand.brand_id)
    if brand is None or brand.twilio_lease_token != hand.token:
        if brand is not None and sent_unsure_seconds is not None:
            _doubt(session, brand, sent_unsure_seconds)
        return None
    brand.twilio_actual = facts.status
    brand.twilio_actual_at = now
    if facts.status not in CHANGEABLE:
        return None
    if brand.twilio_generation != hand.generation or facts.status != brand.twilio_desired:
        return Hand(
            hand.brand_id,
            hand.sid,
            hand.token,
            TwilioStatus(brand.twilio_desired),
            brand.twilio_generation,
        )
    brand.twilio_converged = brand.twilio_generation
    brand.twilio_problem = None
    return None


def give_back(
    session: Session,
    hand: Hand,
    *,
    read_seconds_ago: float = 0,
    unsure_seconds: float | None = None,
    problem: str | None = None,
) -> bool:
    """This function will give the lease back and tell whether the state is still unsure.

    What matters is whether a lost request could still land when our last read began, which is
    `read_seconds_ago`: what landed after that, nobody has seen. `unsure_seconds`: a request of ours
    was lost and may land until then. `problem`: what a person has to look at.
    """
    row = session.execute(
        text(
            "UPDATE brands SET twilio_lease_token = NULL, twilio_lease_until = NULL,"
            " twilio_problem = coalesce(:problem, twilio_problem),"
            " twilio_unsure_until = CASE WHEN CAST(:unsure AS double precision) IS NULL"
            " THEN twilio_unsure_until"
            " ELSE clock_timestamp() + make_interval(secs => :unsure) END"
            " WHERE id = :id AND twilio_lease_token = :token"
            # Not clock_timestamp(), which would count a wait for the row's lock as well.
            " RETURNING twilio_unsure_until"
            " > statement_timestamp() - make_interval(secs => :read_ago) AS unsure"
        ),
        {
            "id": hand.brand_id,
            "token": hand.token,
            "unsure": unsure_seconds,
            "problem": problem,
            "read_ago": read_seconds_ago,
        },
    ).one_or_none()
    if row is None and unsure_seconds is not None:
        brand = lock_brand(session, hand.brand_id)
        if brand is not None:
            _doubt(session, brand, unsure_seconds)
    return bool(row and row.unsure)


def _doubt(session: Session, brand: Brand, unsure_seconds: float) -> None:
    session.execute(
        text(
            "UPDATE brands SET twilio_unsure_until = clock_timestamp()"
            " + make_interval(secs => :unsure) WHERE id = :id"
        ),
        {"unsure": float(unsure_seconds), "id": brand.id},
    )
    stage(session, CONVERGE_TWILIO, brand.organization_id, brand_id=brand.id)


def describe(brand: Brand) -> str:
    """This function will say in a few words how the subaccount stands, for people."""
    if brand.twilio_problem:
        return brand.twilio_problem
    if brand.twilio_actual == brand.twilio_desired:
        return str(brand.twilio_actual)
    return f"{brand.twilio_actual or 'unknown'}, should be {brand.twilio_desired}"
