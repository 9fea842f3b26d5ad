"""Record payments with the amounts of the provider's API, never an event's."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import RefundState
from base.facts import PaymentFacts, PaymentReport
from base.outcomes import Refused
from base.problems.payments import NOT_A_TOP_UP, UNKNOWN_ORGANIZATION
from db.locks import lock_entitlement
from db.models import Organization
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.enforcement import enforce_entitlement
from domain.jobs.staging import stage
from domain.jobs.types import REFRESH_PAYMENT
from domain.payments.settlements import payment_owner, settle_refund
from domain.wallet import operations as wallets
from domain.wallet.ledger import WalletOutcome

#: Seconds until a pending refund is refreshed. Providers promise no event if it fails.
PENDING_REFUND_SECONDS = 6 * 3_600.0


class PaymentNotOurs(Refused):
    """The payment names no known organization. A person must match it."""

    def __init__(self, external_id: str) -> None:
        super().__init__(UNKNOWN_ORGANIZATION, external_id, payment=external_id)


class NotATopUp(Refused):
    """The payment never credited a wallet; it is a subscription's fee, for example."""

    def __init__(self, external_id: str) -> None:
        super().__init__(NOT_A_TOP_UP, external_id, payment=external_id)


def stage_reported_refresh(session: Session, event: PaymentReport) -> None:
    """Stage the job that reads a reported payment from its provider."""
    stage(
        session,
        REFRESH_PAYMENT,
        None,
        provider=str(event.provider),
        kind=event.kind,
        external_id=event.external_id,
    )


def record_payment(session: Session, facts: PaymentFacts, now: datetime) -> WalletOutcome:
    """Settle the payment in the ledger, and enforce the entitlement that follows.

    A refund in the facts is settled too. While it is pending, a job refreshes it later. Replay:
    known facts move nothing. Raises: NotATopUp, PaymentNotOurs, or Refused with the ledger's own
    code (CURRENCY_MISMATCH, IDEMPOTENCY_CONFLICT, …).
    """
    is_known = payment_owner(session, facts.provider, facts.external_id) is not None
    if not facts.ordered and not is_known:
        # The API also returns a subscription's fee as a capture, and a refund or dispute of the fee
        # names that capture. If it were credited, the wallet would contain money that was not paid
        # into it.
        raise NotATopUp(facts.external_id)
    organization_id = facts.organization_id
    if organization_id is None or session.get(Organization, organization_id) is None:
        raise PaymentNotOurs(facts.external_id)
    lock_entitlement(session, organization_id)
    if facts.refund is not None:
        # The refund is settled first, so that the payment is credited without the refunded part
        # and no money moves twice.
        _require_settled(settle_refund(session, organization_id, facts, facts.refund, now), facts)
        if facts.refund.state is RefundState.PENDING:
            stage(
                session,
                REFRESH_PAYMENT,
                organization_id,
                delay_seconds=PENDING_REFUND_SECONDS,
                provider=str(facts.provider),
                kind="refund",
                external_id=facts.refund.external_id,
            )
    outcome = wallets.settle(session, organization_id, facts, now)
    _require_settled(outcome, facts)
    subjects = [facts.external_id, *([facts.refund.external_id] if facts.refund else [])]
    for owner in (None, organization_id):
        clear_alerts(session, AlertKind.PAYMENT_UNSETTLED, owner, *subjects, now=now)
    enforce_entitlement(session, organization_id, now)
    return outcome


def alert_unsettled(session: Session, facts: PaymentFacts, refused: Refused, now: datetime) -> None:
    """Raise the alert of a payment that only a person can settle.

    The alert belongs to the organization that the payment names. If that organization does not
    exist, the alert has no organization. No alert is raised for a payment that is no top-up, or if
    nothing of it was captured. Replay: an active alert is left unchanged. The provider's next
    response that can be settled clears it.
    """
    if isinstance(refused, NotATopUp) or not facts.captured_micros:
        return
    organization = facts.organization_id and session.get(Organization, facts.organization_id)
    raise_alert(
        session,
        AlertKind.PAYMENT_UNSETTLED,
        organization.id if organization else None,
        facts.external_id,
        severity=Severity.CRITICAL,
        details={
            "provider": facts.provider,
            "code": refused.code,
            "captured_micros": facts.captured_micros,
            "currency": facts.currency,
        },
        now=now,
    )


def alert_unreadable(
    session: Session, provider: str, external_id: str, refused: Refused, now: datetime
) -> None:
    """Raise the alert of a payment or refund whose provider's response is unreadable.

    The alert has no organization, because the response would have named it. It is raised and
    cleared like the alert of alert_unsettled.
    """
    raise_alert(
        session,
        AlertKind.PAYMENT_UNSETTLED,
        None,
        external_id,
        severity=Severity.CRITICAL,
        details={"provider": provider, "code": refused.code, "detail": refused.detail},
        now=now,
    )


def _require_settled(outcome: WalletOutcome, facts: PaymentFacts) -> None:
    if not outcome.ok:
        raise Refused(outcome.code, f"payment {facts.external_id}", payment=facts.external_id)
