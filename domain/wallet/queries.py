"""Read a wallet's figures, checked against its newest entry, and its history.

Reads only. domain/wallet/operations.py moves money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Wallet, WalletEntry
from domain.wallet.freezes import active_freezes
from domain.wallet.ledger import WalletNotFound

#: Largest number of entries on one page of the history.
PAGE_MAX = 1_000


@dataclass(frozen=True)
class Balance:
    """A wallet's figures. `consistent`: its row equals its newest entry."""

    organization_id: str
    currency: str
    balance_micros: int
    held_micros: int
    available_micros: int
    owed_micros: int
    entry_no: int
    frozen: bool
    consistent: bool


def balance(session: Session, organization_id: str, now: datetime) -> Balance:
    """Return a wallet's figures, checked against its newest entry.

    Raises: WalletNotFound.
    """
    row = session.execute(
        select(Wallet, WalletEntry)
        .outerjoin(
            WalletEntry,
            (WalletEntry.organization_id == Wallet.organization_id)
            & (WalletEntry.entry_no == Wallet.entry_no),
        )
        .where(Wallet.organization_id == organization_id)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise WalletNotFound(organization_id)
    wallet, newest = row
    stopping, _ = active_freezes(session, organization_id, now)
    return Balance(
        organization_id=organization_id,
        currency=wallet.currency,
        balance_micros=wallet.balance_micros,
        held_micros=wallet.held_micros,
        available_micros=wallet.balance_micros - wallet.held_micros,
        owed_micros=wallet.owed_micros,
        entry_no=wallet.entry_no,
        frozen=bool(stopping),
        consistent=newest is not None
        and newest.balance_after_micros == wallet.balance_micros
        and newest.owed_after_micros == wallet.owed_micros
        and newest.hash == wallet.head_hash,
    )


def entries_sum(session: Session, organization_id: str) -> int:
    """Add up all entries, in micros. The balance must equal this sum."""
    total = session.execute(
        select(
            func.coalesce(
                func.sum(WalletEntry.balance_after_micros - WalletEntry.balance_before_micros), 0
            )
        ).where(WalletEntry.organization_id == organization_id)
    ).scalar_one()
    return int(total)


def history(
    session: Session,
    organization_id: str,
    *,
    after: int | None = None,
    limit: int = 100,
    kinds: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[WalletEntry]:
    """Return one page of entries, newest first, including placed and lifted freezes.

    Units: `after` is the last `entry_no` of the page before, or None for the first page. `limit` is
    1 to 1,000. `since` is inclusive, `until` exclusive.
    """
    query = select(WalletEntry).where(WalletEntry.organization_id == organization_id)
    if after is not None:
        query = query.where(WalletEntry.entry_no < after)
    if kinds:
        query = query.where(WalletEntry.kind.in_(kinds))
    if since is not None:
        query = query.where(WalletEntry.created_at >= since)
    if until is not None:
        query = query.where(WalletEntry.created_at < until)
    page = query.order_by(WalletEntry.entry_no.desc()).limit(max(1, min(limit, PAGE_MAX)))
    return list(session.scalars(page))
