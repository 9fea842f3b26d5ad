"""Read a wallet's figures, checked against its newest entry, and its history.

Reads only. domain/wallet/operations.py moves money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Wallet, WalletEntry, WalletFreeze
from domain.wallet.freezes import active_freezes
from domain.wallet.ledger import WalletNotFound
from domain.wallet.thresholds import thresholds_of

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


@dataclass(frozen=True)
class FreezeView:
    """An active freeze. Until `override_until`, it does not stop spending."""

    reason: str
    cause: str
    placed_by: str
    placed_at: datetime
    note: str
    override_until: datetime | None
    override_by: str | None
    override_note: str | None


@dataclass(frozen=True)
class WalletView:
    """A wallet's figures, and its active freezes: those that stop spending come first."""

    balance: Balance
    stopping: list[FreezeView]
    overridden: list[FreezeView]


@dataclass(frozen=True)
class ThresholdView:
    """A threshold, armed or crossed, and the operator's reason for it."""

    threshold_micros: int
    currency: str
    state: str
    crossed_at: datetime | None
    set_by: str
    set_at: datetime
    reason: str


@dataclass(frozen=True)
class EntryView:
    """One line of the ledger."""

    entry_no: int
    created_at: datetime
    kind: str
    direction: str
    amount_micros: int
    balance_after_micros: int
    outstanding_after_micros: int
    currency: str
    counter_account: str
    idempotency_key: str
    note: str


def balance(session: Session, organization_id: str, now: datetime) -> Balance:
    """Return a wallet's figures, checked against its newest entry.

    Raises: WalletNotFound.
    """
    return read_wallet(session, organization_id, now).balance


def read_wallet(session: Session, organization_id: str, now: datetime) -> WalletView:
    """Read a wallet's figures and its active freezes.

    The figures are checked against the newest entry. Raises: WalletNotFound.
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
    active = active_freezes(session, organization_id, now)
    figures = Balance(
        organization_id=organization_id,
        currency=wallet.currency,
        balance_micros=wallet.balance_micros,
        held_micros=wallet.held_micros,
        available_micros=wallet.balance_micros - wallet.held_micros,
        owed_micros=wallet.owed_micros,
        entry_no=wallet.entry_no,
        frozen=bool(active.stopping),
        consistent=newest is not None
        and newest.balance_after_micros == wallet.balance_micros
        and newest.owed_after_micros == wallet.owed_micros
        and newest.hash == wallet.head_hash,
    )
    stopping, overridden = ([_freeze(row) for row in rows] for rows in active)
    return WalletView(figures, stopping, overridden)


def currency_of(session: Session, organization_id: str) -> str:
    """Return the currency of an organization's wallet. Raises: WalletNotFound."""
    currency = session.scalar(
        select(Wallet.currency).where(Wallet.organization_id == organization_id)
    )
    if currency is None:
        raise WalletNotFound(organization_id)
    return currency


def list_thresholds(session: Session, organization_id: str) -> list[ThresholdView]:
    """List a wallet's thresholds, the highest first. Raises: WalletNotFound."""
    currency = currency_of(session, organization_id)
    return [
        ThresholdView(
            row.threshold_micros,
            currency,
            "armed" if row.armed else "crossed",
            row.crossed_at,
            row.set_by,
            row.set_at,
            row.set_why,
        )
        for row in thresholds_of(session, organization_id)
    ]


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
) -> list[EntryView]:
    """Return one page of entries, newest first, including placed and lifted freezes.

    Units: `after` is the last `entry_no` of the page before, or None for the first page. `limit` is
    1 to 1,000. `since` is inclusive, `until` exclusive. Raises: WalletNotFound.
    """
    currency = currency_of(session, organization_id)
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
    return [_entry(row, currency) for row in session.scalars(page)]


def _freeze(row: WalletFreeze) -> FreezeView:
    return FreezeView(
        row.reason,
        row.cause,
        row.placed_by,
        row.placed_at,
        row.placed_why,
        row.override_until,
        row.override_by,
        row.override_why,
    )


def _entry(row: WalletEntry, currency: str) -> EntryView:
    return EntryView(
        row.entry_no,
        row.created_at,
        row.kind,
        row.direction,
        row.amount_micros,
        row.balance_after_micros,
        row.owed_after_micros,
        currency,
        row.counter_account,
        row.operation_key,
        row.note,
    )
