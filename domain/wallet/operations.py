"""The operations on a wallet. Each calls one SQL function that decides and writes.

A refusal is returned in `outcome`, not raised. Amounts are in micros, 1 to 10^15.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.facts import PaymentFacts
from base.operators import Operator
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION
from domain.operator_notes import check_note
from domain.wallet.ledger import (
    WalletOutcome,
    call_ledger,
    clamp_amount,
    follow_up,
    log_refusal,
    require_wallet,
)


def open_wallet(
    session: Session, organization_id: str, currency: str, now: datetime
) -> WalletOutcome:
    """Open the organization's one wallet in one ISO 4217 currency.

    Replay: an existing wallet in the same currency is left unchanged; in another currency,
    CURRENCY_MISMATCH.
    """
    return call_ledger(
        session,
        "wallet_open(:org, :currency, :now)",
        org=organization_id,
        currency=currency,
        now=now,
    )


def credit(
    session: Session,
    organization_id: str,
    *,
    key: str,
    amount_micros: int,
    currency: str,
    now: datetime,
    kind: str = "credit",
    counter_account: str = "corrections",
    note: str = "",
) -> WalletOutcome:
    """Credit the wallet; the credit pays the outstanding amount first.

    Replay: the same key returns the first result; with another amount, kind or currency,
    IDEMPOTENCY_CONFLICT. Refuses: INVALID_AMOUNT, INVALID_KEY (1 to 200 characters), RESERVED_KEY
    (begins with "call:"), INVALID_KIND, WALLET_NOT_FOUND, CURRENCY_MISMATCH. Raises: InvalidNote.
    """
    check_note(note)
    outcome = call_ledger(
        session,
        "wallet_credit(:org, :key, :amount, :currency, :kind, :counter, :note, :now)",
        org=organization_id,
        key=key,
        amount=clamp_amount(amount_micros),
        currency=currency,
        kind=kind,
        counter=counter_account,
        note=note,
        now=now,
    )
    return follow_up(session, organization_id, outcome, key)


def debit(
    session: Session,
    organization_id: str,
    *,
    key: str,
    amount_micros: int,
    currency: str,
    now: datetime,
    counter_account: str = "messages",
    note: str = "",
) -> WalletOutcome:
    """Debit the available money, or refuse and change nothing.

    Replay: as `credit`. Refuses: FROZEN_WALLET, INSUFFICIENT_FUNDS, and what `credit` refuses.
    Raises: InvalidNote.
    """
    check_note(note)
    outcome = call_ledger(
        session,
        "wallet_debit(:org, :key, :amount, :currency, 'debit', :counter, :note, :now)",
        org=organization_id,
        key=key,
        amount=clamp_amount(amount_micros),
        currency=currency,
        counter=counter_account,
        note=note,
        now=now,
    )
    log_refusal(organization_id, outcome.outcome, what="debit")
    return follow_up(session, organization_id, outcome)


def correct(
    session: Session,
    organization_id: str,
    *,
    key: str,
    amount_micros: int,
    currency: str,
    operator: Operator,
    now: datetime,
) -> WalletOutcome:
    """Correct the balance with an entry of kind BALANCE_CORRECTION.

    A negative amount debits. Replay: as `credit`. Refuses: INSUFFICIENT_FUNDS if the debit exceeds
    the debt limit, and what `credit` refuses.
    """
    outcome = call_ledger(
        session,
        "wallet_correct(:org, :key, :direction, :amount, :currency, :operator, :why, :now)",
        org=organization_id,
        key=key,
        direction="credit" if amount_micros > 0 else "debit",
        amount=clamp_amount(abs(amount_micros)),
        currency=currency,
        operator=operator.name,
        why=operator.reason,
        now=now,
    )
    return follow_up(session, organization_id, outcome, key)


def settle(
    session: Session, organization_id: str, facts: PaymentFacts, now: datetime
) -> WalletOutcome:
    """Bring the ledger in line with what the provider reports of a payment.

    A refund is settled by settlements.settle_refund. Replay: reports whose money has already moved
    change nothing, in whatever order they arrive. If the balance cannot cover what is taken back,
    the rest becomes an outstanding amount and freezes the wallet with `refund_shortfall`. Refuses:
    WALLET_NOT_FOUND, CURRENCY_MISMATCH, INVALID_AMOUNT; IDEMPOTENCY_CONFLICT if the payment belongs
    to another organization.
    """
    return call_ledger(
        session,
        "settle_payment(:org, :provider, 'capture', :id, :currency, :captured, :refunded,"
        " :stated_at, :now)",
        org=organization_id,
        provider=str(facts.provider),
        id=facts.external_id,
        currency=facts.currency,
        captured=clamp_amount(facts.captured_micros),
        refunded=clamp_amount(facts.refunded_micros),
        stated_at=facts.stated_at,
        now=now,
    )


def rebuild(
    session: Session, organization_id: str, *, operator: Operator, now: datetime
) -> WalletOutcome:
    """Rebuild the wallet row from its entries and its open holds.

    Only the database owner's login may call it. Raises: the database's `data_corrupted` error if
    the entries do not add up, or if more is held than balance and debt limit allow; WalletNotFound.
    """
    require_wallet(session, organization_id)
    outcome = call_ledger(
        session,
        "wallet_rebuild(:org, :operator, :why, :now)",
        org=organization_id,
        operator=operator.name,
        why=operator.reason,
        now=now,
    )
    # The entitlement was derived from the row as it was before.
    stage(session, ENFORCE_ORGANIZATION, organization_id, organization_id=organization_id)
    return outcome
