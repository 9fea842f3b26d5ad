"""Debits in numbers: many in the caller's transaction, or single ones that share commits.

A refusal is an answer (`outcome`), not an exception, and takes no other debit with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.debits.combiner import Debit
from db.engine import Database, forget
from db.models import Wallet
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION
from domain.wallet.ledger import WalletOutcome, refusable

__all__ = ["Debit", "debit_many", "debit_now"]

_CALL = text(
    "SELECT outcomes, replayed, entry_nos, balances, helds, oweds, befores FROM wallet_debit_many("
    "CAST(:orgs AS text[]), CAST(:keys AS text[]), CAST(:amounts AS bigint[]),"
    " CAST(:currencies AS text[]), CAST(:counters AS text[]), :now, NULL)"
)


def debit_now(database: Database, debit: Debit) -> WalletOutcome:
    """This function will take from what is available, in a commit shared with other callers.

    Never called inside a transaction, where debit_many is the way: it owns its own, and answers
    after the commit. The instant is the database's clock. Replay: as wallet.debit; also after
    OutcomeUnknown, with the same key. Refuses: INVALID_KEY (1 to 200 characters), and what
    wallet.debit refuses; a text that cannot be stored is nobody's key, wallet or currency. Raises:
    DatabaseBusy when nothing was committed; OutcomeUnknown when that is not known.
    """
    # One that the server cannot read would be told by taking apart the batch that it came with.
    for given, code in (
        (debit.key, "INVALID_KEY"),
        (debit.organization_id, "WALLET_NOT_FOUND"),
        (debit.currency, "CURRENCY_MISMATCH"),
    ):
        if not _is_storable(given):
            return WalletOutcome(code, replayed=False)
    bounded = debit._replace(amount_micros=refusable(debit.amount_micros))
    return WalletOutcome(*database.combiner.debit(bounded))


def debit_many(session: Session, debits: Sequence[Debit], now: datetime) -> list[WalletOutcome]:
    """This function will take many debits of one or many wallets, each as wallet.debit would.

    Answers stand in the order of the request; a wallet's debits are decided in that order. Wallets
    are locked in one order, and nobody may lock a wallet before it in the same transaction.
    Replay: by key, within the request too. Refuses: as debit_now.
    """
    if not debits:
        return []
    orgs, keys, amounts, currencies, counters = map(list, zip(*debits, strict=True))
    row = session.execute(
        _CALL,
        {
            "orgs": orgs,
            "keys": keys,
            "amounts": [refusable(amount) for amount in amounts],
            "currencies": currencies,
            "counters": counters,
            "now": now,
        },
    ).one()
    outcomes = [WalletOutcome(*answer) for answer in zip(*row, strict=True)]
    for organization_id in dict.fromkeys(orgs):
        forget(session, Wallet, organization_id)
    crossed = {org for org, one in zip(orgs, outcomes, strict=True) if one.crossed_zero}
    for organization_id in sorted(crossed):
        stage(session, ENFORCE_ORGANIZATION, organization_id, organization_id=organization_id)
    return outcomes


def _is_storable(given: object) -> bool:
    """Whether it is a text that PostgreSQL can hold: no NUL, and no half of a character."""
    if not isinstance(given, str) or "\0" in given:
        return False
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True
