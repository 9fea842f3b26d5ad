"""A brand's subaccount: its desired state with a generation, and the lease on it.

One worker at a time brings the subaccount into the desired state. It reads the desired state after
it has taken the lease, so a late retry of an old suspension cannot undo a newer reactivation. While
a lost request may still take effect, workers read the subaccount again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.ids import new_id
from base.outcomes import NotYet, Refused
from db.locks import BrandNotFound, lock_brand
from db.models import Alert, Brand
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.jobs.staging import stage
from domain.jobs.types import CONVERGE_TWILIO

#: Seconds after which a job retries, if another worker holds the lease.
_LEASED_RETRY_SECONDS = 1.0
#: The states that we can change. Any other state needs a person.
CHANGEABLE_STATES = (TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED)
#: An alert about drift stays active at least this long. After that, the first read that finds the
#: desired state clears it.
DRIFT_ALERT_ACTIVE_MIN = timedelta(hours=1)


@dataclass(frozen=True)
class SubaccountLease:
    """The lease on one subaccount, with the state and generation that are desired."""

    brand_id: str
    sid: str
    token: str
    desired: TwilioStatus
    generation: int
    #: The subaccount had reached the newest generation, and no request from Holdfast was lost. Any
    #: other state is then a change made on Twilio's side.
    settled: bool = False


def take_lease(
    session: Session, brand_id: str, *, lease_seconds: float, unsure_seconds: float
) -> SubaccountLease:
    """Take the lease on a brand's subaccount.

    If the last lease ran out without being given back, its holder died or lost its connection. A
    request of that holder may still take effect within `unsure_seconds`. Raises: NotYet while
    another worker holds the lease; BrandNotFound.
    """
    brand = lock_brand(session, brand_id)
    if brand is None or brand.twilio_subaccount_sid is None:
        raise BrandNotFound(brand_id)
    token = new_id("lse")
    row = session.execute(
        text(
            "UPDATE brands SET twilio_lease_token = :token,"
            " twilio_lease_until = clock_timestamp() + make_interval(secs => :lease),"
            " twilio_unsure_until = CASE WHEN twilio_lease_token IS NULL THEN twilio_unsure_until"
            " ELSE clock_timestamp() + make_interval(secs => :unsure) END"
            " WHERE id = :id"
            " AND (twilio_lease_until IS NULL OR twilio_lease_until <= clock_timestamp()"
            # The end is further away than a lease can be: the clock was set back.
            " OR twilio_lease_until > clock_timestamp() + make_interval(secs => :lease))"
            " RETURNING coalesce(twilio_converged = twilio_generation"
            " AND (twilio_unsure_until > clock_timestamp()) IS NOT TRUE, false) AS settled"
        ),
        {"token": token, "lease": lease_seconds, "unsure": unsure_seconds, "id": brand_id},
    ).one_or_none()
    if row is None:
        raise NotYet("another worker holds the lease of this subaccount", _LEASED_RETRY_SECONDS)
    return SubaccountLease(
        brand_id,
        brand.twilio_subaccount_sid,
        token,
        TwilioStatus(brand.twilio_desired),
        brand.twilio_generation,
        row.settled,
    )


def record_found_state(
    session: Session, lease: SubaccountLease, found_state: TwilioStatus, now: datetime
) -> None:
    """Store the state found at Twilio before changing it; a crash loses no drift."""
    brand = lock_brand(session, lease.brand_id)
    if brand is None or brand.twilio_lease_token != lease.token:
        return
    brand.twilio_found, brand.twilio_found_at = found_state, now
    if lease.settled:
        brand.twilio_drift = found_state


def record_state(
    session: Session,
    lease: SubaccountLease,
    facts: SubaccountFacts,
    now: datetime,
    *,
    sent_unsure_seconds: float | None = None,
) -> SubaccountLease | None:
    """Store the state Twilio reported; return a lease if another state is desired.

    - None: the state is the desired one or cannot be changed, or another worker holds the lease.
    - A `SubaccountLease`: the caller must set the desired state in this lease.

    The state is stored only while the row has our token, because the read of another holder is
    newer. If we sent a request and lost the lease meanwhile, that request may have undone the other
    holder's change. The subaccount is then unsure for `sent_unsure_seconds`, and a job reads it
    again.

    Repaired drift raises an alert. A subaccount in its desired state clears the alert that it was
    unusable.
    """
    brand = lock_brand(session, lease.brand_id)
    if brand is None or brand.twilio_lease_token != lease.token:
        if brand is not None and sent_unsure_seconds is not None:
            _mark_unsure(session, brand, sent_unsure_seconds)
        return None
    brand.twilio_actual = facts.status
    brand.twilio_actual_at = now
    if sent_unsure_seconds is None:
        brand.twilio_found, brand.twilio_found_at = facts.status, now
    if facts.status not in CHANGEABLE_STATES:
        return None
    if brand.twilio_generation != lease.generation or facts.status != brand.twilio_desired:
        return SubaccountLease(
            lease.brand_id,
            lease.sid,
            lease.token,
            TwilioStatus(brand.twilio_desired),
            brand.twilio_generation,
        )
    brand.twilio_converged = brand.twilio_generation
    brand.twilio_problem = None
    _update_drift_alert(session, brand, now)
    return None


def record_refusal(
    session: Session, lease: SubaccountLease, refused: Refused, now: datetime
) -> None:
    """Give the lease back, and alert that a person must act on the subaccount.

    Replay: an active alert is left unchanged. The first read that finds the desired state clears
    the alert.
    """
    brand = lock_brand(session, lease.brand_id)
    if brand is None or brand.twilio_lease_token != lease.token:
        return
    # If Twilio itself suspended the subaccount, it is reported as unusable, not as drift.
    brand.twilio_drift = None
    session.flush()
    release_lease(session, lease, problem=refused.code)
    raise_alert(
        session,
        AlertKind.SUBACCOUNT_UNUSABLE,
        brand.organization_id,
        lease.sid,
        severity=Severity.CRITICAL,
        details={
            "brand": brand.id,
            "code": refused.code,
            "desired": brand.twilio_desired,
            "found": brand.twilio_found,
        },
        now=now,
    )


def subaccount_of(session: Session, brand_id: str) -> str:
    """Return the id of a brand's subaccount.

    Raises: BrandNotFound, also if the brand has no subaccount.
    """
    brand = session.get(Brand, brand_id, populate_existing=True)
    if brand is None or brand.twilio_subaccount_sid is None:
        raise BrandNotFound(brand_id)
    return brand.twilio_subaccount_sid


def stage_repair(session: Session, brand_id: str) -> None:
    """Stage the job that brings a brand's subaccount into its desired state."""
    brand = session.get(Brand, brand_id)
    if brand is not None:
        stage(session, CONVERGE_TWILIO, brand.organization_id, brand_id=brand_id)


def record_check(session: Session, brand_id: str, facts: SubaccountFacts, now: datetime) -> None:
    """Store what a check read without the lease, and stage a repair if it is needed.

    The repair takes the lease and reads again. If another worker changed the subaccount after this
    check read it, the repair therefore changes nothing.
    """
    brand = lock_brand(session, brand_id)
    if brand is None or brand.twilio_subaccount_sid != facts.external_id:
        return
    settled = brand.twilio_converged == brand.twilio_generation and not brand.twilio_problem
    if not settled or facts.status != brand.twilio_desired:
        stage(session, CONVERGE_TWILIO, brand.organization_id, brand_id=brand.id)
    elif brand.twilio_lease_token is None:
        brand.twilio_actual = brand.twilio_found = facts.status
        brand.twilio_actual_at = brand.twilio_found_at = now
        _update_drift_alert(session, brand, now)


def _update_drift_alert(session: Session, brand: Brand, now: datetime) -> None:
    organization_id, sid = brand.organization_id, str(brand.twilio_subaccount_sid)
    clear_alerts(session, AlertKind.SUBACCOUNT_UNUSABLE, organization_id, sid, now=now)
    if brand.twilio_drift is None:
        raised_at = session.scalar(
            select(Alert.raised_at).where(
                Alert.kind == AlertKind.SUBACCOUNT_DRIFTED,
                Alert.organization_id == organization_id,
                Alert.subject == sid,
                Alert.cleared_at.is_(None),
            )
        )
        if raised_at is not None and raised_at <= now - DRIFT_ALERT_ACTIVE_MIN:
            clear_alerts(session, AlertKind.SUBACCOUNT_DRIFTED, organization_id, sid, now=now)
        return
    was_usable = brand.twilio_drift == TwilioStatus.ACTIVE
    raise_alert(
        session,
        AlertKind.SUBACCOUNT_DRIFTED,
        organization_id,
        sid,
        severity=Severity.CRITICAL if was_usable else Severity.WARNING,
        details={
            "brand": brand.id,
            "wrong_side": "twilio",
            "found": brand.twilio_drift,
            "desired": brand.twilio_desired,
            "repaired": brand.twilio_actual != brand.twilio_drift,
        },
        now=now,
    )
    brand.twilio_drift = None


def release_lease(
    session: Session,
    lease: SubaccountLease,
    *,
    read_seconds_ago: float = 0,
    unsure_seconds: float | None = None,
    problem: str | None = None,
) -> bool:
    """Give the lease back; return whether a lost request may still change the state.

    `read_seconds_ago`: age of the last read. A lost request may change the state after that read,
    unless its time was over before. `unsure_seconds`: how much longer a lost request may change the
    state; None if no request was lost. `problem`: the code of a problem that a person must solve.
    """
    row = session.execute(
        text(
            "UPDATE brands SET twilio_lease_token = NULL, twilio_lease_until = NULL,"
            " twilio_problem = coalesce(:problem, twilio_problem),"
            " twilio_unsure_until = CASE WHEN CAST(:unsure AS double precision) IS NULL"
            " THEN twilio_unsure_until"
            " ELSE clock_timestamp() + make_interval(secs => :unsure) END"
            " WHERE id = :id AND twilio_lease_token = :token"
            # clock_timestamp() would also count a wait for the row's lock.
            " RETURNING twilio_unsure_until"
            " > statement_timestamp() - make_interval(secs => :read_ago) AS unsure"
        ),
        {
            "id": lease.brand_id,
            "token": lease.token,
            "unsure": unsure_seconds,
            "problem": problem,
            "read_ago": read_seconds_ago,
        },
    ).one_or_none()
    if row is None and unsure_seconds is not None:
        brand = lock_brand(session, lease.brand_id)
        if brand is not None:
            _mark_unsure(session, brand, unsure_seconds)
    return bool(row and row.unsure)


def _mark_unsure(session: Session, brand: Brand, unsure_seconds: float) -> None:
    session.execute(
        text(
            "UPDATE brands SET twilio_unsure_until = clock_timestamp()"
            " + make_interval(secs => :unsure) WHERE id = :id"
        ),
        {"unsure": float(unsure_seconds), "id": brand.id},
    )
    stage(session, CONVERGE_TWILIO, brand.organization_id, brand_id=brand.id)
