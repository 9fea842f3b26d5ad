"""Organizations with their subscriptions, brands and campaigns."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ForeignKey,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class Organization(Base):
    """A customer of the company, which pays in advance."""

    __tablename__ = "organizations"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]


class Subscription(Base):
    """A subscription: its status at the provider, and what newer events reported."""

    __tablename__ = "subscriptions"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    provider: Mapped[str]
    external_id: Mapped[str]
    plan_external_id: Mapped[str | None]
    status: Mapped[str]
    status_changed_at: Mapped[datetime | None]
    looked_at: Mapped[datetime | None]
    past_due_since: Mapped[datetime | None]
    grace_seconds: Mapped[int] = mapped_column(default=0)
    reports: Mapped[int] = mapped_column(default=0)
    reported_at: Mapped[datetime | None]
    reported_claim: Mapped[str | None]
    closing_reported_at: Mapped[datetime | None]
    contradicted_at: Mapped[datetime | None]
    look_token: Mapped[str | None]
    look_lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime]


class Brand(Base):
    """A sender identity, with the Twilio subaccount that sends its messages."""

    __tablename__ = "brands"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str]
    twilio_subaccount_sid: Mapped[str | None]
    twilio_desired: Mapped[str] = mapped_column(default="active")
    twilio_generation: Mapped[int] = mapped_column(default=0)
    twilio_actual: Mapped[str | None]
    twilio_actual_at: Mapped[datetime | None]
    twilio_converged: Mapped[int | None]
    twilio_problem: Mapped[str | None]
    twilio_lease_token: Mapped[str | None]
    twilio_lease_until: Mapped[datetime | None]
    twilio_unsure_until: Mapped[datetime | None]
    #: The status that the newest read found, before anything was changed.
    twilio_found: Mapped[str | None]
    twilio_found_at: Mapped[datetime | None]
    #: The status into which the subaccount drifted, until that is repaired and reported.
    twilio_drift: Mapped[str | None]
    twilio_checked_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class Campaign(Base):
    """A campaign. Only an operator sets and clears `manually_paused`."""

    __tablename__ = "campaigns"
    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    brand_id: Mapped[str] = mapped_column(ForeignKey("brands.id"))
    name: Mapped[str]
    status: Mapped[str]
    manually_paused: Mapped[bool] = mapped_column(default=False)
    pause_reason: Mapped[str | None]
    paused_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
