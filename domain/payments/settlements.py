"""Settle the refunds and disputes of payments through the ledger's SQL functions.

Each function takes one object as the provider's API returned it. The ledger moves the money. A
refusal is returned in `outcome`, not raised.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import Provider, RefundState
from base.facts import DisputeFacts, DisputeReport, PaymentFacts, RefundFacts
from db.models import PaymentDispute, PaymentRefund
from domain.wallet.ledger import WalletOutcome, call_ledger, clamp_amount

#: The only kind of payment so far: money captured in one piece.
CAPTURE = "capture"


def settle_refund(
    session: Session,
    organization_id: str,
    payment: PaymentFacts,
    refund: RefundFacts,
    now: datetime,
) -> WalletOutcome:
    """Bring the ledger in line with one refund of a payment.

    Each refund counts once; a failed refund is given back. Replay: an older or repeated response
    moves nothing. Refuses: as operations.settle; IDEMPOTENCY_CONFLICT also if the refund is known
    as another payment's.
    """
    total = refund.total_micros
    return call_ledger(
        session,
        "settle_refund(:org, :provider, :kind, :payment, :currency, :id, :amount, :total, :state,"
        " :made_at, :stated_at, :now)",
        org=organization_id,
        provider=str(payment.provider),
        kind=CAPTURE,
        payment=payment.external_id,
        currency=payment.currency,
        id=refund.external_id,
        amount=clamp_amount(refund.amount_micros),
        total=None if total is None else clamp_amount(total),
        state=str(refund.state),
        made_at=refund.made_at,
        stated_at=refund.stated_at,
        now=now,
    )


def settle_dispute(
    session: Session, organization_id: str, facts: DisputeFacts, now: datetime
) -> WalletOutcome:
    """Bring the ledger in line with one dispute of a known payment.

    The disputed money is withheld while the dispute is open, stays taken if it is lost, and is
    given back if it is won. Replay: an older or repeated response moves nothing. Refuses:
    PAYMENT_NOT_FOUND, CURRENCY_MISMATCH, INVALID_AMOUNT; IDEMPOTENCY_CONFLICT if the provider had
    named another payment.
    """
    return call_ledger(
        session,
        "settle_dispute(:provider, :kind, :payment, :currency, :id, :amount, :state, :opened_at,"
        " :stated_at, :now)",
        org=organization_id,
        provider=str(facts.provider),
        kind=CAPTURE,
        payment=facts.payment_external_id,
        currency=facts.currency,
        id=facts.external_id,
        amount=clamp_amount(facts.disputed_micros),
        state=str(facts.state),
        opened_at=facts.opened_at,
        stated_at=facts.stated_at,
        now=now,
    )


def note_reported(session: Session, event: DisputeReport, now: datetime) -> list[str]:
    """Store a dispute that an event reported, and return the organizations concerned.

    The list is empty if none of the event's payments is known. Replay: what the provider itself has
    reported of the dispute is kept.
    """
    found: list[str] = session.execute(
        text("SELECT dispute_reported(:provider, :kind, :payments, :id, :now)"),
        {
            "provider": str(event.provider),
            "kind": CAPTURE,
            "payments": list(event.payment_external_ids),
            "id": event.external_id,
            "now": now,
        },
    ).scalar_one()
    return found


def payment_owner(session: Session, provider: Provider, external_id: str) -> str | None:
    """Return the organization that the payment belongs to, or None if it is not known."""
    return session.execute(
        text(
            "SELECT organization_id FROM payment_references"
            " WHERE provider = :provider AND kind = :kind AND external_id = :id"
        ),
        {"provider": str(provider), "kind": CAPTURE, "id": external_id},
    ).scalar_one_or_none()


def known_dispute(session: Session, provider: str, external_id: str) -> PaymentDispute | None:
    """Read a dispute's row in its current state."""
    return session.get(PaymentDispute, (provider, external_id), populate_existing=True)


def refunds_of(session: Session, provider: Provider, payment_id: str) -> list[PaymentRefund]:
    """Read the refunds of a payment that count, which are all but the failed ones."""
    return list(
        session.scalars(
            select(PaymentRefund)
            .where(
                PaymentRefund.provider == str(provider),
                PaymentRefund.kind == CAPTURE,
                PaymentRefund.payment_id == payment_id,
                PaymentRefund.state != RefundState.FAILED,
            )
            .order_by(PaymentRefund.external_id)
            .execution_options(populate_existing=True)
        )
    )
