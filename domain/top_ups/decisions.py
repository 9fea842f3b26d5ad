"""Automatic top-up: decide by the rule, and store each decision.

A decision is not a charge. It waits for its charge to begin (domain/top_ups/charges.py), and
expires if none begins. Every change here holds the organization's lock, so that two decisions of
one organization never overlap.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from base.enums import FreezeReason, Provider
from base.ids import new_id
from db.locks import lock_organization, lock_wallet
from db.models import TopUpDecision, TopUpSettings, Wallet
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.jobs.staging import stage
from domain.jobs.types import DECIDE_TOP_UP
from domain.top_ups.rule import (
    DECISION_LIFE,
    Enough,
    Past,
    State,
    TopUpCharge,
    TopUpTerms,
    Verdict,
    Wait,
    Why,
    decide_top_up,
)
from domain.wallet.freezes import active_freezes

#: How many decisions the rule reads. 24 hours cannot contain more: at most 100 charges, and one
#: expired decision each hour.
_PAST_DECISIONS_MAX = 250
#: Automatic top-up charges a frozen wallet only under this freeze, because a credit can end it.
_CHARGEABLE_FREEZES = {FreezeReason.CALL_SHORTFALL}


def decide(
    session: Session, organization_id: str, now: datetime, *, chargeable: Collection[Provider]
) -> Verdict | None:
    """Decide whether to top up now, and stage the next evaluation if one is needed.

    `chargeable` names the providers that can charge. Return None if automatic top-up is off.
    Replay: while a decision is pending, none is added. Raises: OrganizationNotFound.
    """
    lock_organization(session, organization_id)
    wallet = lock_wallet(session, organization_id)
    settings = session.get(TopUpSettings, organization_id, populate_existing=True)
    if wallet is None or settings is None or not settings.enabled:
        return None
    expire_decisions(session, organization_id, now)
    verdict = decide_top_up(
        _terms(settings),
        wallet.balance_micros - wallet.held_micros,
        past_of(session, organization_id),
        now,
        hindrance=hindrance_of(session, settings, chargeable, now),
    )
    if isinstance(verdict, TopUpCharge):
        decision = _add_decision(session, settings, wallet, verdict.micros, now)
        stage_evaluation(session, settings, decision.expires_at, now)
    elif isinstance(verdict, Wait):
        stage_evaluation(session, settings, verdict.until, now)
    else:
        # The level is armed although no top-up followed. A level that stays crossed would never be
        # detected again. The rule itself prevents bursts of charges.
        settings.armed, settings.crossed_at = True, None
    _alert_cap(session, settings, verdict, now)
    session.flush()
    session.expire(wallet)
    return verdict


def expire_decisions(
    session: Session, organization_id: str, now: datetime, *, all_waiting: bool = False
) -> int:
    """Expire decisions whose charge has not begun: those past their time, or all.

    Return the number of expired decisions. The caller holds the organization's lock.
    """
    waiting = session.scalars(
        select(TopUpDecision)
        .filter_by(organization_id=organization_id, state=str(State.DECIDED), charging_at=None)
        .execution_options(populate_existing=True)
    ).all()
    expired = [row for row in waiting if all_waiting or row.expires_at <= now]
    for row in expired:
        row.state, row.ended_at = State.EXPIRED, now
    session.flush()
    return len(expired)


def decisions_of(session: Session, organization_id: str, limit: int) -> list[TopUpDecision]:
    """List an organization's decisions, the newest first."""
    return list(
        session.scalars(
            select(TopUpDecision)
            .filter_by(organization_id=organization_id)
            .order_by(TopUpDecision.decided_at.desc(), TopUpDecision.id.desc())
            .limit(limit)
            .execution_options(populate_existing=True)
        )
    )


def _terms(settings: TopUpSettings) -> TopUpTerms:
    return TopUpTerms(
        settings.below_micros,
        settings.amount_micros,
        settings.day_cap_micros,
        settings.day_cap_count,
    )


def past_of(session: Session, organization_id: str) -> list[Past]:
    """Return the organization's earlier decisions, in the form that the rule takes."""
    return [
        Past(
            state=State(row.state),
            micros=row.charged_micros or row.amount_micros,
            decided_at=row.decided_at,
            expires_at=row.expires_at,
            ended_at=row.ended_at,
            charging=row.charging_at is not None,
        )
        for row in decisions_of(session, organization_id, _PAST_DECISIONS_MAX)
    ]


def hindrance_of(
    session: Session, settings: TopUpSettings, chargeable: Collection[Provider], now: datetime
) -> Why | None:
    """Return the reason why no charge is possible; None if a charge is possible."""
    if settings.provider not in chargeable:
        return Why.CANNOT_CHARGE
    active, _ = active_freezes(session, settings.organization_id, now)
    if {row.reason for row in active} - _CHARGEABLE_FREEZES:
        return Why.FROZEN
    return None


def _add_decision(
    session: Session, settings: TopUpSettings, wallet: Wallet, micros: int, now: datetime
) -> TopUpDecision:
    earlier_count = session.scalar(
        select(func.count()).where(
            TopUpDecision.organization_id == settings.organization_id,
            TopUpDecision.crossing == settings.crossings,
        )
    )
    nth = (earlier_count or 0) + 1
    decision = TopUpDecision(
        id=new_id("top"),
        organization_id=settings.organization_id,
        # The key is derived from the crossing and not random. If the same decision is made twice,
        # the unique index here or the provider prevents the second charge.
        idempotency_key=f"topup:{settings.organization_id}:{settings.crossings}:{nth}",
        crossing=settings.crossings,
        provider=settings.provider,
        payment_method=settings.payment_method,
        amount_micros=micros,
        currency=wallet.currency,
        state=State.DECIDED,
        decided_at=now,
        expires_at=now + DECISION_LIFE,
    )
    session.add(decision)
    return decision


def stage_evaluation(
    session: Session, settings: TopUpSettings, until: datetime, now: datetime
) -> None:
    """Stage the next evaluation, unless one is due earlier.

    At most one evaluation therefore waits.
    """
    if settings.asks_at is not None and now < settings.asks_at <= until:
        return
    settings.asks_at = until
    stage(
        session,
        DECIDE_TOP_UP,
        settings.organization_id,
        delay_seconds=(until - now).total_seconds(),
        organization_id=settings.organization_id,
    )


def _alert_cap(session: Session, settings: TopUpSettings, verdict: Verdict, now: datetime) -> None:
    kind, organization_id = AlertKind.TOP_UP_CAPPED, settings.organization_id
    if isinstance(verdict, Wait) and verdict.why is Why.DAY_CAP:
        details = {
            "day_cap_micros": settings.day_cap_micros,
            "day_cap_count": settings.day_cap_count,
            "until": verdict.until.isoformat(),
        }
        raise_alert(
            session,
            kind,
            organization_id,
            settings.provider,
            severity=Severity.WARNING,
            details=details,
            now=now,
        )
    elif isinstance(verdict, TopUpCharge | Enough):
        clear_alerts(session, kind, organization_id, now=now)
