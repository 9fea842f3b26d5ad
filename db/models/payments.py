"""Refunds, disputes, automatic top-up, and PayPal's certificates."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    FetchedValue,
    ForeignKey,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class PaymentRefund(Base):
    """A refund or reversal of a payment, as the provider last reported it. Read-only."""

    __tablename__ = "payment_refunds"
    provider: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    payment_id: Mapped[str]
    organization_id: Mapped[str] = mapped_column(ForeignKey("wallets.organization_id"))
    amount_micros: Mapped[int] = mapped_column(BigInteger)
    total_micros: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str]
    made_at: Mapped[datetime | None]
    stated_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class PaymentDispute(Base):
    """A dispute of a payment, as an event or the provider last reported it. Read-only."""

    __tablename__ = "payment_disputes"
    provider: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    payment_id: Mapped[str]
    organization_id: Mapped[str] = mapped_column(ForeignKey("wallets.organization_id"))
    disputed_micros: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str]
    opened_at: Mapped[datetime | None]
    stated_at: Mapped[datetime | None]
    changed_at: Mapped[datetime]
    created_at: Mapped[datetime]
    named: Mapped[list[str]] = mapped_column(ARRAY(Text))


class TopUpSettings(Base):
    """An organization's rules for automatic top-up, and its crossings of the level."""

    __tablename__ = "top_up_settings"
    organization_id: Mapped[str] = mapped_column(
        ForeignKey("wallets.organization_id"), primary_key=True
    )
    enabled: Mapped[bool]
    provider: Mapped[str]
    payment_method: Mapped[str]
    below_micros: Mapped[int] = mapped_column(BigInteger)
    amount_micros: Mapped[int] = mapped_column(BigInteger)
    day_cap_micros: Mapped[int] = mapped_column(BigInteger)
    day_cap_count: Mapped[int]
    armed: Mapped[bool] = mapped_column(default=True)
    crossed_at: Mapped[datetime | None]
    crossings: Mapped[int] = mapped_column(BigInteger, server_default=FetchedValue())
    asks_at: Mapped[datetime | None]
    set_by: Mapped[str]
    set_why: Mapped[str]
    set_at: Mapped[datetime]


class TopUpDecision(Base):
    """A decision of automatic top-up to charge once, and its outcome."""

    __tablename__ = "top_up_decisions"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("wallets.organization_id"))
    idempotency_key: Mapped[str]
    crossing: Mapped[int] = mapped_column(BigInteger)
    provider: Mapped[str]
    payment_method: Mapped[str]
    amount_micros: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    state: Mapped[str]
    decided_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    charging_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    payment_external_id: Mapped[str | None]
    charged_micros: Mapped[int | None] = mapped_column(BigInteger)
    decline_code: Mapped[str | None]


class PayPalCertificate(Base):
    """A signing certificate of PayPal that was fetched and verified."""

    __tablename__ = "paypal_certificates"
    url: Mapped[str] = mapped_column(primary_key=True)
    pem: Mapped[bytes]
    fetched_at: Mapped[datetime]
