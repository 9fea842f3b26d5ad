"""Debit at high volume: many debits in a transaction, or with shared commits.

A refused debit returns its code in `outcome`, raises nothing and does not affect other debits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from base.problems.wallet import CURRENCY_MISMATCH, INVALID_KEY, WALLET_NOT_FOUND
from db.debits.combiner import Debit
from db.engine import Database, expire_row
from db.models import Wallet
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION
from domain.wallet.ledger import WalletOutcome, clamp_amount, log_refusal

__all__ = ["Debit", "debit_many", "debit_now"]

_DEBIT_MANY_SQL = text(
    "SELECT outcomes, replayed, entry_nos, balances, helds, oweds, befores FROM wallet_debit_many("
    "CAST(:orgs AS text[]), CAST(:keys AS text[]), CAST(:amounts AS bigint[]),"
    " CAST(:currencies AS text[]), CAST(:counters AS text[]), :now, NULL)"
)


def debit_now(database: Database, debit: Debit) -> WalletOutcome:
    """Debit the available money, in a commit shared with other callers.

    The function has its own transaction and returns after the commit. Inside a transaction, call
    `debit_many` instead. The instant is the database's clock. Replay: as operations.debit, also
    after OutcomeUnknown, with the same key. Refuses: INVALID_KEY (1 to 200 characters), and what
    operations.debit refuses. Text that PostgreSQL cannot store is refused as an invalid key,
    unknown wallet or wrong currency. Raises: DatabaseBusy if nothing was committed; OutcomeUnknown
    if the commit may have happened.
    """
    # Text that the server cannot store would fail the whole batch. The batch would then have to be
    # split to find the debit at fault.
    for value, code in (
        (debit.key, INVALID_KEY),
        (debit.organization_id, WALLET_NOT_FOUND),
        (debit.currency, CURRENCY_MISMATCH),
    ):
        if not _is_storable(value):
            return WalletOutcome(code, replayed=False)
    clamped = debit._replace(amount_micros=clamp_amount(debit.amount_micros))
    outcome = WalletOutcome(*database.combiner.debit(clamped))
    log_refusal(debit.organization_id, outcome.outcome, what="debit")
    return outcome


def debit_many(session: Session, debits: Sequence[Debit], now: datetime) -> list[WalletOutcome]:
    """Debit one or many wallets many times, each as operations.debit would.

    The results are in the order of the request. The debits of one wallet are decided in that order.
    The function locks the wallets in the order of their ids. To avoid a deadlock, the caller must
    not lock a wallet earlier in the same transaction. Replay: by key, also within the request.
    Refuses: as debit_now.
    """
    if not debits:
        return []
    orgs, keys, amounts, currencies, counters = map(list, zip(*debits, strict=True))
    row = session.execute(
        _DEBIT_MANY_SQL,
        {
            "orgs": orgs,
            "keys": keys,
            "amounts": [clamp_amount(amount) for amount in amounts],
            "currencies": currencies,
            "counters": counters,
            "now": now,
        },
    ).one()
    outcomes = [WalletOutcome(*columns) for columns in zip(*row, strict=True)]
    for organization_id, outcome in zip(orgs, outcomes, strict=True):
        log_refusal(organization_id, outcome.outcome, what="debit")
    for organization_id in dict.fromkeys(orgs):
        expire_row(session, Wallet, organization_id)
    crossed = {org for org, each in zip(orgs, outcomes, strict=True) if each.crossed_zero}
    for organization_id in sorted(crossed):
        stage(session, ENFORCE_ORGANIZATION, organization_id, organization_id=organization_id)
    return outcomes


def _is_storable(value: object) -> bool:
    """Return whether the value is text that PostgreSQL can store."""
    # PostgreSQL stores neither NUL nor lone surrogates.
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
