"""What becomes of a decided top-up: its charge begins, and the provider says how it ended.

Money moves only by the payment that the provider's API shows, in the commit that ends the decision.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import Provider
from base.facts import PaymentFacts
from base.outcomes import NotYet, Refused
from db.locks import lock_standing, lock_wallet
from db.models import TopUpDecision, TopUpSettings
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.payments.payments import record_payment
from domain.top_ups.decisions import ask, hindrance_of, past_of
from domain.top_ups.rule import GAP, State, back_off_ends


class DecisionNotFound(Refused):
    """There is no decision with this id."""

    def __init__(self, decision_id: str) -> None:
        super().__init__("DECISION_NOT_FOUND", decision_id, decision=decision_id)


class DecisionOutdated(Refused):
    """The decision is over, or what stands now would not allow it any more: charge nothing."""

    def __init__(self, decision_id: str, why: str) -> None:
        super().__init__("DECISION_OUTDATED", why, decision=decision_id)


class DecisionCharged(Refused):
    """The decision has become a payment, and no other answer changes that."""

    def __init__(self, decision_id: str) -> None:
        super().__init__("DECISION_CHARGED", decision_id, decision=decision_id)


class PaymentMismatch(Refused):
    """The payment is not one of this decision's provider and organization, or another's already."""

    def __init__(self, decision_id: str, external_id: str) -> None:
        super().__init__("PAYMENT_MISMATCH", external_id, decision=decision_id)


def begin_charge(
    session: Session, decision_id: str, now: datetime, *, chargeable: Collection[Provider]
) -> TopUpDecision:
    """This function will take up a decision to charge it: from now on it does not expire.

    Committed before the provider is asked, with the decision's own key. Replay: one whose charge
    has begun is given again, so that a lost answer is asked for under the same key. Raises:
    DecisionNotFound; DecisionOutdated where it is over, expired, switched off or frozen by now.
    """
    decision = _locked(session, decision_id)
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
    """This function will credit the payment that a decision became, and end the decision with it.

    `facts` are the payment as read back from the provider. Also for a decision that was taken for
    declined or expired: the money has come. Replay: the same payment changes nothing. Raises:
    NotYet while nothing is captured; DecisionNotFound, PaymentMismatch; DecisionCharged for another
    payment; and what payments.record_payment raises.
    """
    decision = _locked(session, decision_id)
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
    _ask_after(session, decision, now + GAP, now)


def record_declined(session: Session, decision_id: str, code: str, now: datetime) -> None:
    """This function will end a decision that the provider declined, and raise the alert.

    `code` is the provider's own, cut at 200 characters. The next look comes when the back-off is
    over. Replay: a declined one is left as it is. Raises: DecisionNotFound; DecisionCharged for one
    that became a payment.
    """
    decision = _locked(session, decision_id)
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
    retry = back_off_ends(past_of(session, decision.organization_id))
    _ask_after(session, decision, retry or now + GAP, now)


def _locked(session: Session, decision_id: str) -> TopUpDecision:
    """The decision as it is under the locks that all which changes it holds, in their order."""
    found = session.get(TopUpDecision, decision_id)
    if found is None:
        raise DecisionNotFound(decision_id)
    lock_standing(session, found.organization_id)
    session.refresh(found)
    return found


def _is_its_payment(session: Session, decision: TopUpDecision, facts: PaymentFacts) -> bool:
    other = session.scalar(
        select(TopUpDecision.id).where(
            TopUpDecision.provider == decision.provider,
            TopUpDecision.payment_external_id == facts.external_id,
            TopUpDecision.id != decision.id,
        )
    )
    ours = (decision.provider, decision.organization_id, decision.currency)
    return other is None and (str(facts.provider), facts.organization_id, facts.currency) == ours


def _ask_after(session: Session, decision: TopUpDecision, until: datetime, now: datetime) -> None:
    lock_wallet(session, decision.organization_id)
    settings = session.get_one(TopUpSettings, decision.organization_id, populate_existing=True)
    if settings.enabled and not settings.armed:
        ask(session, settings, until, now)
    session.flush()
