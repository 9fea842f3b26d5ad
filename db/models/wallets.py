"""Wallets, entries, freezes, holds and thresholds. Only the ledger writes them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    ForeignKey,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class Wallet(Base):
    """An organization's money, in micros of one currency. Read-only."""

    __tablename__ = "wallets"
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    currency: Mapped[str]
    balance_micros: Mapped[int] = mapped_column(BigInteger)
    held_micros: Mapped[int] = mapped_column(BigInteger)
    owed_micros: Mapped[int] = mapped_column(BigInteger)
    debt_limit_micros: Mapped[int] = mapped_column(BigInteger)
    entry_no: Mapped[int] = mapped_column(BigInteger)
    head_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    notice_below_micros: Mapped[int | None] = mapped_column(BigInteger)


class WalletEntry(Base):
    """One line of the ledger, never changed. Read-only."""

    __tablename__ = "wallet_entries"
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    entry_no: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str]
    direction: Mapped[str]
    amount_micros: Mapped[int] = mapped_column(BigInteger)
    balance_before_micros: Mapped[int] = mapped_column(BigInteger)
    balance_after_micros: Mapped[int] = mapped_column(BigInteger)
    owed_after_micros: Mapped[int] = mapped_column(BigInteger)
    counter_account: Mapped[str]
    operation_key: Mapped[str]
    note: Mapped[str]
    created_at: Mapped[datetime]
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]


class WalletFreeze(Base):
    """A freeze: why a wallet may not spend, from placing to lifting. Read-only."""

    __tablename__ = "wallet_freezes"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("wallets.organization_id"))
    reason: Mapped[str]
    cause: Mapped[str]
    placed_by: Mapped[str]
    placed_why: Mapped[str]
    placed_at: Mapped[datetime]
    override_until: Mapped[datetime | None]
    override_by: Mapped[str | None]
    override_why: Mapped[str | None]
    lifted_by: Mapped[str | None]
    lifted_why: Mapped[str | None]
    lifted_at: Mapped[datetime | None]


class CallHold(Base):
    """A hold: money set aside for a call, and how it was used. Read-only."""

    __tablename__ = "call_holds"
    organization_id: Mapped[str] = mapped_column(
        ForeignKey("wallets.organization_id"), primary_key=True
    )
    call_id: Mapped[str] = mapped_column(primary_key=True)
    provider_call_id: Mapped[str | None]
    reserved_micros: Mapped[int] = mapped_column(BigInteger)
    extensions: Mapped[int] = mapped_column(default=0)
    extended_micros: Mapped[int] = mapped_column(BigInteger)
    captured_micros: Mapped[int] = mapped_column(BigInteger)
    released_micros: Mapped[int] = mapped_column(BigInteger)
    billed_micros: Mapped[int | None] = mapped_column(BigInteger)
    shortfall_micros: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]


class WalletThreshold(Base):
    """A level of available money that raises an alert. The ledger arms and disarms it."""

    __tablename__ = "wallet_thresholds"
    organization_id: Mapped[str] = mapped_column(
        ForeignKey("wallets.organization_id"), primary_key=True
    )
    threshold_micros: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    armed: Mapped[bool] = mapped_column(default=True)
    crossed_at: Mapped[datetime | None]
    set_by: Mapped[str]
    set_why: Mapped[str]
    set_at: Mapped[datetime]
