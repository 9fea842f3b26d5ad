"""Begin the charge of a decided top-up, and record the provider's result.

Only a payment that the provider's API returns credits the wallet. The same commit ends the
decision.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import Provider
from base.facts import PaymentFacts
from base.outcomes import NotYet, Refused
from base.problems.payments import (
    DECISION_CHARGED,
    DECISION_NOT_FOUND,
    DECISION_OUTDATED,
    PAYMENT_MISMATCH,
)
from db.locks import lock_entitlement, lock_wallet
from db.models import TopUpDecision, TopUpSettings
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.payments.payments import record_payment
from domain.top_ups.decisions import hindrance_of, past_of, stage_evaluation
from domain.top_ups.rule import GAP, State, back_off_ends


class DecisionNotFound(Refused):
    """No decision has this id."""

    def __init__(self, decision_id: str) -> None:
        super().__init__(DECISION_NOT_FOUND, decision_id, decision=decision_id)


class DecisionOutdated(Refused):
    """The decision is over or may no longer be charged."""

    def __init__(self, decision_id: str, why: str) -> None:
        super().__init__(DECISION_OUTDATED, why, decision=decision_id)


class DecisionCharged(Refused):
    """The decision already has its payment, and no other result can change that."""

    def __init__(self, decision_id: str) -> None:
        super().__init__(DECISION_CHARGED, decision_id, decision=decision_id)


class PaymentMismatch(Refused):
    """The payment does not fit the decision.

    Its provider, organization or currency is another one, or it belongs to another decision.
    """

    def __init__(self, decision_id: str, external_id: str) -> None:
        super().__init__(PAYMENT_MISMATCH, external_id, decision=decision_id)


def begin_charge(
    session: Session, decision_id: str, now: datetime, *, chargeable: Collection[Provider]
) -> TopUpDecision:
    """Mark a decision as being charged; a charging decision does not expire.

    The caller commits before it calls the provider with the decision's idempotency key. Replay: a
    decision whose charge has begun is returned again, so that a lost response can be requested with
    the same key. Raises: DecisionNotFound; DecisionOutdated if the decision is over or expired,
    automatic top-up is off, or a charge is no longer possible.
    """
    decision = _lock_decision(session, decision_id)
    if decision.state != State.DECIDED:
        raise DecisionOutdated(decision_id, f"it is {decision.state}")
    if decision.charging_at is not None:
        return decision
    settings = session.get_one(TopUpSettings, decision.organization_id, populate_existing=True)
    hindrance = hindrance_of(session, settings, chargeable, now)
    if decision.expires_at <= now or not settings.enabled or hindrance is not None:
        raise DecisionOutdated(decision_id, hindrance or "it waited too long, or is switched off")
    decision.charging_at = now
    session.flush()
    return decision


def record_charged(session: Session, decision_id: str, facts: PaymentFacts, now: datetime) -> None:
    """Credit the payment that a decision led to, and end the decision.

    `facts` are the payment as read from the provider. A decision that counts as declined or expired
    is accepted too, because the money has arrived. Replay: the same payment changes nothing.
    Raises: NotYet if nothing is captured yet; DecisionNotFound, PaymentMismatch; DecisionCharged if
    the decision led to another payment; and what payments.record_payment raises.
    """
    decision = _lock_decision(session, decision_id)
    if decision.state == State.CHARGED and decision.payment_external_id != facts.external_id:
        raise DecisionCharged(decision_id)
    if not _is_its_payment(session, decision, facts):
        raise PaymentMismatch(decision_id, facts.external_id)
    if facts.captured_micros == 0:
        raise NotYet(f"payment {facts.external_id} is not captured", 60)
    record_payment(session, facts, now)
    if decision.state == State.CHARGED:
        return
    decision.state, decision.ended_at, decision.decline_code = State.CHARGED, now, None
    decision.payment_external_id = facts.external_id
    decision.charged_micros = facts.captured_micros
    clear_alerts(session, AlertKind.TOP_UP_DECLINED, decision.organization_id, now=now)
    _stage_next_evaluation(session, decision, now + GAP, now)


def record_declined(session: Session, decision_id: str, code: str, now: datetime) -> None:
    """End a decision that the provider declined, and raise the alert.

    `code` is the provider's own code. It is cut at 200 characters. The next evaluation is staged
    for the end of the back-off. Replay: a declined decision is left unchanged. Raises:
    DecisionNotFound; DecisionCharged if the decision led to a payment.
    """
    decision = _lock_decision(session, decision_id)
    if decision.state == State.CHARGED:
        raise DecisionCharged(decision_id)
    if decision.state == State.DECLINED:
        return
    code = code[:200] or "declined"
    decision.state, decision.ended_at, decision.decline_code = State.DECLINED, now, code
    raise_alert(
        session,
        AlertKind.TOP_UP_DECLINED,
        decision.organization_id,
        decision.provider,
        severity=Severity.WARNING,
        details={"decision": decision.id, "code": code, "amount_micros": decision.amount_micros},
        now=now,
    )
    session.flush()
    retry_at = back_off_ends(past_of(session, decision.organization_id))
    _stage_next_evaluation(session, decision, retry_at or now + GAP, now)


def _lock_decision(session: Session, decision_id: str) -> TopUpDecision:
    """Lock the organization, as every change of a decision does; read the decision."""
    decision = session.get(TopUpDecision, decision_id)
    if decision is None:
        raise DecisionNotFound(decision_id)
    lock_entitlement(session, decision.organization_id)
    session.refresh(decision)
    return decision


def _is_its_payment(session: Session, decision: TopUpDecision, facts: PaymentFacts) -> bool:
    other_decision = session.scalar(
        select(TopUpDecision.id).where(
            TopUpDecision.provider == decision.provider,
            TopUpDecision.payment_external_id == facts.external_id,
            TopUpDecision.id != decision.id,
        )
    )
    expected = (decision.provider, decision.organization_id, decision.currency)
    return (
        other_decision is None
        and (str(facts.provider), facts.organization_id, facts.currency) == expected
    )


def _stage_next_evaluation(
    session: Session, decision: TopUpDecision, until: datetime, now: datetime
) -> None:
    lock_wallet(session, decision.organization_id)
    settings = session.get_one(TopUpSettings, decision.organization_id, populate_existing=True)
    if settings.enabled and not settings.armed:
        stage_evaluation(session, settings, until, now)
    session.flush()
