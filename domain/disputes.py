"""Disputes: an event's word freezes, the provider's own word moves the money and lifts.

What is disputed is withheld while the dispute is open; one that is won gives it back.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import DisputeState, FreezeReason
from base.facts import DisputeFacts, DisputeReport, PaymentFacts
from base.outcomes import Refused
from db.locks import lock_standing
from domain import settlements
from domain.freezes import cause_of_dispute
from domain.jobs import (
    FREEZE_WALLET,
    LOOK_AT_DISPUTE,
    LOOK_AT_PAYMENT,
    UNFREEZE_WALLET,
    JobType,
    stage,
)
from domain.payments import record_payment
from domain.posture import apply_posture
from domain.wallet import WalletOutcome


def report(session: Session, event: DisputeReport, now: datetime) -> None:
    """This function will take in a verified event: freeze at once, and stage the look that decides.

    It freezes where the event says that a dispute has begun and its payment is known here. Replay:
    safe; a late event of a dispute that the provider has closed freezes nothing.
    """
    organization_id = None
    if event.opening and event.payment_external_id is not None:
        organization_id = settlements.note_reported(
            session, event.provider, event.payment_external_id, event.external_id, now
        )
    if organization_id is not None:
        _stage_freeze(session, FREEZE_WALLET, organization_id, event)
    stage(
        session,
        LOOK_AT_DISPUTE,
        organization_id,
        provider=str(event.provider),
        external_id=event.external_id,
    )


def payment_is_known(session: Session, facts: DisputeFacts) -> bool:
    """This function will tell whether the disputed payment has been settled here before."""
    owner = settlements.payment_owner(session, facts.provider, facts.payment_external_id)
    return owner is not None


def record_dispute(
    session: Session, facts: DisputeFacts, payment: PaymentFacts | None, now: datetime
) -> WalletOutcome:
    """This function will settle the dispute in the ledger and stage the freeze or its lifting.

    `payment` is the disputed payment, read back too, where it was not known: it is settled first.
    Replay: an older or repeated word moves nothing. Raises: NotATopUp, PaymentNotOurs, or Refused
    with the ledger's own code (PAYMENT_NOT_FOUND, CURRENCY_MISMATCH, …).
    """
    if payment is not None:
        record_payment(session, payment, now)
    organization_id = settlements.payment_owner(session, facts.provider, facts.payment_external_id)
    if organization_id is None:
        raise Refused("PAYMENT_NOT_FOUND", facts.payment_external_id, dispute=facts.external_id)
    lock_standing(session, organization_id)
    before = settlements.known_dispute(session, facts.provider, facts.external_id)
    owner_before, state_before = (before.organization_id, before.state) if before else (None, None)
    outcome = settlements.settle_dispute(session, organization_id, facts, now)
    if not outcome.ok:
        raise Refused(outcome.outcome, f"dispute {facts.external_id}", dispute=facts.external_id)
    if owner_before is not None and owner_before != organization_id:
        # The event had named somebody else's payment.
        _stage_freeze(session, UNFREEZE_WALLET, owner_before, facts)
    after = settlements.known_dispute(session, facts.provider, facts.external_id)
    if after is not None and after.state == DisputeState.OPEN:
        _stage_freeze(session, FREEZE_WALLET, organization_id, facts)
    else:
        _stage_freeze(session, UNFREEZE_WALLET, organization_id, facts)
        if after is None or after.state != state_before:
            _look_at_refunds_again(session, organization_id, facts)
    apply_posture(session, organization_id, now)
    return outcome


def _stage_freeze(
    session: Session, job: JobType, organization_id: str, about: DisputeReport | DisputeFacts
) -> None:
    stage(
        session,
        job,
        organization_id,
        organization_id=organization_id,
        reason=str(FreezeReason.DISPUTE),
        cause=cause_of_dispute(about.provider, about.external_id),
    )


def _look_at_refunds_again(session: Session, organization_id: str, facts: DisputeFacts) -> None:
    """A reversal that the provider undoes with the end of a dispute is told by no event."""
    for refund in settlements.refunds_of(session, facts.provider, facts.payment_external_id):
        stage(
            session,
            LOOK_AT_PAYMENT,
            organization_id,
            provider=refund.provider,
            kind="refund",
            external_id=refund.external_id,
        )
