"""The ledger's functions for what happens to a payment afterwards: its refunds and its disputes.

Each takes one thing as the provider's API showed it; the ledger moves what follows. A refusal is an
answer (`outcome`), not an exception.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import Provider, RefundState
from base.facts import DisputeFacts, DisputeReport, PaymentFacts, RefundFacts
from db.models import PaymentDispute, PaymentRefund
from domain.wallet.ledger import WalletOutcome, call_ledger, refusable

#: The only kind of payment so far: money captured in one piece.
CAPTURE = "capture"


def settle_refund(
    session: Session,
    organization_id: str,
    payment: PaymentFacts,
    refund: RefundFacts,
    now: datetime,
) -> WalletOutcome:
    """This function will bring the ledger in line with one refund of a payment.

    Refunds add up, each once; one that failed gives back. Replay: an older or repeated word moves
    nothing. Refuses: as wallet.settle; IDEMPOTENCY_CONFLICT also when the refund was known as
    another payment's.
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
        amount=refusable(refund.amount_micros),
        total=None if total is None else refusable(total),
        state=str(refund.state),
        made_at=refund.made_at,
        stated_at=refund.stated_at,
        now=now,
    )


def settle_dispute(
    session: Session, organization_id: str, facts: DisputeFacts, now: datetime
) -> WalletOutcome:
    """This function will bring the ledger in line with one dispute of a known payment.

    What is disputed is withheld while the dispute is open, stays taken once it is lost, and is
    given back once it is won. Replay: an older or repeated word moves nothing. Refuses:
    PAYMENT_NOT_FOUND, CURRENCY_MISMATCH, INVALID_AMOUNT; IDEMPOTENCY_CONFLICT when the provider had
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
        amount=refusable(facts.disputed_micros),
        state=str(facts.state),
        opened_at=facts.opened_at,
        stated_at=facts.stated_at,
        now=now,
    )


def note_reported(session: Session, event: DisputeReport, now: datetime) -> list[str]:
    """This function will note a dispute that an event told of, and give whom it concerns.

    Nobody where none of its payments is known. Replay: what is known of the dispute already stands.
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
    """This function will give the organization whose payment it is, None where it is not known."""
    return session.execute(
        text(
            "SELECT organization_id FROM payment_references"
            " WHERE provider = :provider AND kind = :kind AND external_id = :id"
        ),
        {"provider": str(provider), "kind": CAPTURE, "id": external_id},
    ).scalar_one_or_none()


def known_dispute(session: Session, provider: str, external_id: str) -> PaymentDispute | None:
    """This function will read a dispute's row as it is now."""
    return session.get(PaymentDispute, (provider, external_id), populate_existing=True)


def refunds_of(session: Session, provider: Provider, payment_id: str) -> list[PaymentRefund]:
    """This function will read the refunds of a payment that count."""
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
