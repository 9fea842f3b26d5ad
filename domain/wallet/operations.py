"""A wallet's operations: each calls one function of the ledger's SQL, which decides and writes.

A refusal is an answer (`outcome`), not an exception. Amounts are micros, 1 to 10^15.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import FreezeReason
from base.facts import PaymentFacts
from base.outcomes import Refused
from db.models import WalletFreeze
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION
from domain.operator_notes import check_note, check_who_and_why
from domain.wallet.ledger import WalletOutcome, call_ledger, follow_up, refusable, require_wallet

#: The longest override of a freeze: an emergency that lasts longer is no emergency.
OVERRIDE_DAYS_MAX = 30


class UnknownFreeze(Refused):
    """No freeze of this reason stands on the wallet."""

    def __init__(self, organization_id: str, reason: str) -> None:
        super().__init__("FREEZE_NOT_FOUND", reason, organization=organization_id)


def open_wallet(
    session: Session, organization_id: str, currency: str, now: datetime
) -> WalletOutcome:
    """This function will open the organization's one wallet in one ISO 4217 currency.

    Replay: a wallet that is there in the same currency is left as it is; in another,
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
    """This function will add to the balance; what is owed is paid first.

    Replay: the same key answers as the first time; with another amount or kind,
    IDEMPOTENCY_CONFLICT. Refuses: INVALID_AMOUNT, INVALID_KEY (1 to 200 characters),
    INVALID_KIND, WALLET_NOT_FOUND, CURRENCY_MISMATCH. Raises: InvalidNote.
    """
    check_note(note)
    outcome = call_ledger(
        session,
        "wallet_credit(:org, :key, :amount, :currency, :kind, :counter, :note, :now)",
        org=organization_id,
        key=key,
        amount=refusable(amount_micros),
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
    """This function will take from what is available, or refuse and change nothing.

    Replay: as credit. Refuses: FROZEN_WALLET, INSUFFICIENT_FUNDS, and what credit refuses. Raises:
    InvalidNote.
    """
    check_note(note)
    outcome = call_ledger(
        session,
        "wallet_debit(:org, :key, :amount, :currency, 'debit', :counter, :note, :now)",
        org=organization_id,
        key=key,
        amount=refusable(amount_micros),
        currency=currency,
        counter=counter_account,
        note=note,
        now=now,
    )
    return follow_up(session, organization_id, outcome)


def correct(
    session: Session,
    organization_id: str,
    *,
    key: str,
    amount_micros: int,
    currency: str,
    operator: str,
    why: str,
    now: datetime,
) -> WalletOutcome:
    """This function will write a BALANCE_CORRECTION entry; a negative amount takes.

    Replay: as credit. Refuses: INSUFFICIENT_FUNDS below the debt limit, and what credit refuses.
    Raises: WhoAndWhy, InvalidNote.
    """
    check_who_and_why(operator, why)
    outcome = call_ledger(
        session,
        "wallet_correct(:org, :key, :direction, :amount, :currency, :operator, :why, :now)",
        org=organization_id,
        key=key,
        direction="credit" if amount_micros > 0 else "debit",
        amount=refusable(abs(amount_micros)),
        currency=currency,
        operator=operator,
        why=why,
        now=now,
    )
    return follow_up(session, organization_id, outcome, key)


def settle(
    session: Session, organization_id: str, facts: PaymentFacts, now: datetime
) -> WalletOutcome:
    """This function will bring the ledger in line with what a payment itself says.

    Its refund, if there is one, is settlements.settle_refund's. Replay: facts seen before, in any
    order, move nothing. What cannot be taken back is owed, and freezes with refund_shortfall.
    Refuses: WALLET_NOT_FOUND, CURRENCY_MISMATCH, INVALID_AMOUNT; IDEMPOTENCY_CONFLICT when the
    payment belongs to another organization.
    """
    return call_ledger(
        session,
        "settle_payment(:org, :provider, 'capture', :id, :currency, :captured, :refunded,"
        " :stated_at, :now)",
        org=organization_id,
        provider=str(facts.provider),
        id=facts.external_id,
        currency=facts.currency,
        captured=refusable(facts.captured_micros),
        refunded=refusable(facts.refunded_micros),
        stated_at=facts.stated_at,
        now=now,
    )


def freeze(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    by: str,
    why: str,
    now: datetime,
    cause: str = "",
) -> bool:
    """This function will place a freeze; False if it stands already, which changes nothing.

    Raises: WalletNotFound, WhoAndWhy, InvalidNote.
    """
    check_who_and_why(by, why)
    require_wallet(session, organization_id)
    placed = session.execute(
        text("SELECT wallet_freeze(:org, :reason, :cause, :by, :why, :now)"),
        {
            "org": organization_id,
            "reason": str(reason),
            "cause": cause,
            "by": by,
            "why": why,
            "now": now,
        },
    ).scalar_one()
    return bool(placed)


def unfreeze(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    by: str,
    why: str,
    now: datetime,
    cause: str | None = None,
) -> int:
    """This function will lift the reason's freezes (one cause, or all) and give how many.

    Other reasons stay: the wallet is frozen while any stands. Raises: WalletNotFound,
    WhoAndWhy, InvalidNote.
    """
    check_who_and_why(by, why)
    require_wallet(session, organization_id)
    lifted: int = session.execute(
        text("SELECT wallet_unfreeze(:org, :reason, :cause, :by, :why, :now)"),
        {
            "org": organization_id,
            "reason": str(reason),
            "cause": cause,
            "by": by,
            "why": why,
            "now": now,
        },
    ).scalar_one()
    return lifted


def override(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    until: datetime,
    by: str,
    why: str,
    now: datetime,
) -> None:
    """This function will let the wallet spend although the reason stands, until an instant.

    At that instant the posture is enforced again by a job staged here; the debit itself compares
    with `now` and waits for no job. Raises: UnknownFreeze, WhoAndWhy, InvalidNote; Refused
    INVALID_OVERRIDE when `until` is past or more than 30 days away.
    """
    check_who_and_why(by, why)
    seconds = (until - now).total_seconds()
    if not 0 < seconds <= OVERRIDE_DAYS_MAX * 86_400:
        raise Refused("INVALID_OVERRIDE", f"the end must lie within {OVERRIDE_DAYS_MAX} days")
    require_wallet(session, organization_id)
    count: int = session.execute(
        text("SELECT wallet_override(:org, :reason, :until, :by, :why, :now)"),
        {
            "org": organization_id,
            "reason": str(reason),
            "until": until,
            "by": by,
            "why": why,
            "now": now,
        },
    ).scalar_one()
    if not count:
        raise UnknownFreeze(organization_id, reason)
    stage(
        session,
        ENFORCE_ORGANIZATION,
        organization_id,
        delay_seconds=seconds + 1,
        organization_id=organization_id,
    )


def standing_freezes(
    session: Session, organization_id: str, now: datetime
) -> tuple[list[WalletFreeze], list[WalletFreeze]]:
    """This function will give the freezes that stop spending, and those overridden at `now`."""
    rows = session.scalars(
        select(WalletFreeze)
        .where(WalletFreeze.organization_id == organization_id, WalletFreeze.lifted_at.is_(None))
        .order_by(WalletFreeze.id)
        .execution_options(populate_existing=True)
    ).all()
    overridden = [row for row in rows if row.override_until and row.override_until > now]
    return [row for row in rows if row not in overridden], overridden


def rebuild(
    session: Session, organization_id: str, *, operator: str, why: str, now: datetime
) -> WalletOutcome:
    """This function will make the wallet row again from its entries and its open holds.

    The owner's login only. Raises: the database's data_corrupted error when the entries themselves
    do not add up, or more is held than they leave; WhoAndWhy, InvalidNote.
    """
    check_who_and_why(operator, why)
    require_wallet(session, organization_id)
    outcome = call_ledger(
        session,
        "wallet_rebuild(:org, :operator, :why, :now)",
        org=organization_id,
        operator=operator,
        why=why,
        now=now,
    )
    # Whatever the row said before, its posture was derived from it.
    stage(session, ENFORCE_ORGANIZATION, organization_id, organization_id=organization_id)
    return outcome
