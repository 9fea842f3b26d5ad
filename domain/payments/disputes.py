"""Apply disputes: an event freezes; an API response moves money and unfreezes.

The disputed money is withheld while the dispute is open, and returned if the dispute is won.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import DisputeState, FreezeReason
from base.facts import DisputeFacts, DisputeReport, PaymentFacts
from base.outcomes import Refused
from base.problems.payments import PAYMENT_NOT_FOUND
from db.locks import lock_entitlement
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert
from domain.enforcement import enforce_entitlement
from domain.jobs.declaration import JobType
from domain.jobs.staging import stage
from domain.jobs.types import FREEZE_WALLET, REFRESH_DISPUTE, REFRESH_PAYMENT, UNFREEZE_WALLET
from domain.payments import settlements
from domain.payments.dispute_freezes import cause_of_dispute
from domain.payments.payments import record_payment
from domain.wallet.ledger import WalletOutcome


def apply_event(session: Session, event: DisputeReport, now: datetime) -> None:
    """Apply a verified event: freeze if it opens a dispute, and stage a refresh.

    A job freezes each organization whose payment the event names. Replay: safe; a late event of a
    dispute that the provider has closed freezes nothing.
    """
    organization_ids = settlements.note_reported(session, event, now) if event.opening else []
    for organization_id in organization_ids:
        _stage_freeze(session, FREEZE_WALLET, organization_id, event)
    stage(
        session,
        REFRESH_DISPUTE,
        organization_ids[0] if len(organization_ids) == 1 else None,
        provider=str(event.provider),
        external_id=event.external_id,
    )


def payment_is_known(session: Session, facts: DisputeFacts) -> bool:
    """Return whether the disputed payment is already recorded with an organization."""
    owner = settlements.payment_owner(session, facts.provider, facts.payment_external_id)
    return owner is not None


def record_dispute(
    session: Session, facts: DisputeFacts, payment: PaymentFacts | None, now: datetime
) -> WalletOutcome:
    """Settle the dispute in the ledger, and stage a freeze or an unfreeze.

    If the disputed payment was not known, the caller reads it from the provider and passes it as
    `payment`. That payment is settled first. Replay: an older or repeated response moves nothing.
    Raises: NotATopUp, PaymentNotOurs, or Refused with the ledger's own code (PAYMENT_NOT_FOUND,
    CURRENCY_MISMATCH, …).
    """
    if payment is not None:
        record_payment(session, payment, now)
    organization_id = settlements.payment_owner(session, facts.provider, facts.payment_external_id)
    if organization_id is None:
        raise Refused(PAYMENT_NOT_FOUND, facts.payment_external_id, dispute=facts.external_id)
    lock_entitlement(session, organization_id)
    row_before = settlements.known_dispute(session, facts.provider, facts.external_id)
    state_before = row_before.state if row_before else None
    outcome = settlements.settle_dispute(session, organization_id, facts, now)
    if not outcome.ok:
        raise Refused(outcome.code, f"dispute {facts.external_id}", dispute=facts.external_id)
    row_after = settlements.known_dispute(session, facts.provider, facts.external_id)
    other_ids = sorted({*row_after.named} - {organization_id}) if row_after else []
    if row_after is None or row_after.state != state_before:
        for other_id in other_ids:
            # The event had named this other organization's payment too.
            _stage_freeze(session, UNFREEZE_WALLET, other_id, facts)
    if row_after is not None and row_after.state == DisputeState.OPEN:
        _stage_freeze(session, FREEZE_WALLET, organization_id, facts)
    else:
        _stage_freeze(session, UNFREEZE_WALLET, organization_id, facts)
        if row_after is None or row_after.state != state_before:
            _stage_refund_refreshes(session, organization_id, facts)
    for owner in (None, organization_id, *other_ids):
        clear_alerts(session, AlertKind.DISPUTE_UNSETTLED, owner, facts.external_id, now=now)
    enforce_entitlement(session, organization_id, now)
    return outcome


def alert_unsettled(
    session: Session, provider: str, external_id: str, refused: Refused, now: datetime
) -> None:
    """Raise the alert of a dispute that only a person can settle.

    Each organization concerned gets an alert. If none is known, the alert has no organization.
    Replay: an active alert is left unchanged. The provider's next response that can be settled
    clears it.
    """
    dispute = settlements.known_dispute(session, provider, external_id)
    organization_ids = sorted({dispute.organization_id, *dispute.named}) if dispute else [None]
    if dispute:
        # An alert without an organization may have been raised while the dispute was not known.
        clear_alerts(session, AlertKind.DISPUTE_UNSETTLED, None, external_id, now=now)
    for organization_id in organization_ids:
        raise_alert(
            session,
            AlertKind.DISPUTE_UNSETTLED,
            organization_id,
            external_id,
            severity=Severity.CRITICAL,
            details={"provider": provider, "code": refused.code, "detail": refused.detail},
            now=now,
        )


def _stage_freeze(
    session: Session, job: JobType, organization_id: str, dispute: DisputeReport | DisputeFacts
) -> None:
    stage(
        session,
        job,
        organization_id,
        organization_id=organization_id,
        reason=str(FreezeReason.DISPUTE),
        cause=cause_of_dispute(dispute.provider, dispute.external_id),
    )


def _stage_refund_refreshes(session: Session, organization_id: str, facts: DisputeFacts) -> None:
    """Stage a refresh of each refund of the payment, because a dispute has ended.

    The provider may then undo a reversal, and no event reports that.
    """
    for refund in settlements.refunds_of(session, facts.provider, facts.payment_external_id):
        stage(
            session,
            REFRESH_PAYMENT,
            organization_id,
            provider=refund.provider,
            kind="refund",
            external_id=refund.external_id,
        )
