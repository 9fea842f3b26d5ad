"""Settles payments as the provider's API reports them, and decides top-ups."""

from __future__ import annotations

from sqlalchemy.orm import Session

from base.log import get_logger
from base.outcomes import Refused
from domain.payments.payments import alert_unreadable, alert_unsettled, record_payment
from domain.top_ups import decisions as top_ups
from domain.wallet.ledger import WalletOutcome
from workers.attempt import Run

log = get_logger(__name__)


def look_at_payment(run: Run, provider: str, kind: str, external_id: str) -> None:
    """Read a payment from its provider and settle it in the ledger.

    The job is refused and an alert raised if the provider's answer cannot be interpreted, the
    payment is not ours, or the ledger refuses the payment. Replay: the facts are cumulative, so a
    second refresh moves nothing. Raises: the provider's errors if the provider does not answer.
    """
    billing = run.providers.billing(provider)
    try:
        facts = billing.get_payment(kind, external_id)
    except Refused as error:
        unreadable = error
        run.refuse(
            unreadable,
            lambda session: alert_unreadable(session, provider, external_id, unreadable, run.now),
        )
        return

    outcomes: list[WalletOutcome] = []

    def record(session: Session) -> None:
        outcomes[:] = [record_payment(session, facts, run.now)]

    try:
        run.record(record)
    except Refused as error:
        refused = error
        run.refuse(refused, lambda session: alert_unsettled(session, facts, refused, run.now))
        return
    if facts.captured_micros:
        log.info(
            "payment_settled",
            organization=facts.organization_id,
            provider=provider,
            payment=facts.external_id,
            captured_micros=facts.captured_micros,
            currency=facts.currency,
            replayed=outcomes[0].replayed,
        )


def decide_top_up(run: Run, organization_id: str) -> None:
    """Decide whether automatic top-up charges now, or when to decide again.

    Replay: while a decision is pending, no other decision is added. Raises: OrganizationNotFound.
    """
    top_ups.decide(run.job_session, organization_id, run.now, chargeable=run.providers.chargeable)
