"""The tables as Python sees them. The ledger's are mapped to be read: only its functions write.

Columns, checks and keys stand in migrations/; a test compares the two.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    FetchedValue,
    ForeignKey,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map = {
        str: Text,
        int: Integer,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
    }


class Organization(Base):
    """A customer of the company: it pays in advance and spends."""

    __tablename__ = "organizations"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]


class Subscription(Base):
    """A subscription at a provider: its word (status), and what events have claimed since."""

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
    """A sender of messages, with the Twilio subaccount it sends through."""

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
    #: What the newest read found, before anything was changed.
    twilio_found: Mapped[str | None]
    twilio_found_at: Mapped[datetime | None]
    #: The state that it drifted into, until that is repaired and told.
    twilio_drift: Mapped[str | None]
    twilio_checked_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class Campaign(Base):
    """A campaign of messages; a pause by hand is a flag that the system never clears."""

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


class InboxEvent(Base):
    """A verified webhook, byte for byte, once per provider event id."""

    __tablename__ = "inbox"
    id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    external_id: Mapped[str]
    transmission_id: Mapped[str | None]
    event_type: Mapped[str]
    #: None once it was handled long ago: the row stays, so that a repeat is known as one.
    body: Mapped[bytes | None]
    body_sha256: Mapped[bytes]
    correlation_id: Mapped[str]
    received_at: Mapped[datetime]
    handled_at: Mapped[datetime | None]
    outcome: Mapped[str | None]


class Job(Base):
    """What is still owed, or was done: the truth of which a message in Redis is only the bell."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kwargs: Mapped[dict[str, Any]]
    organization_id: Mapped[str | None]
    queue: Mapped[str]
    cause: Mapped[str | None]
    correlation_id: Mapped[str]
    staged_at: Mapped[datetime]
    due_at: Mapped[datetime]
    ring_at: Mapped[datetime | None]
    rings: Mapped[int] = mapped_column(SmallInteger)
    attempt: Mapped[int]
    failures: Mapped[int]
    postponements: Mapped[int]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    done_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    dead_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    object_key: Mapped[str | None]


class JobAttempt(Base):
    """One run of a job: by whom, from when to when, and how it ended."""

    __tablename__ = "job_attempts"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error: Mapped[str | None]
    traceback: Mapped[str | None]


class OperatorAct(Base):
    """What a person did by hand: to what, why and when."""

    __tablename__ = "operator_acts"
    id: Mapped[str] = mapped_column(primary_key=True)
    act: Mapped[str]
    subject: Mapped[str]
    operator: Mapped[str]
    why: Mapped[str]
    acted_at: Mapped[datetime]


class ScheduleRow(Base):
    """When a periodic job is staged next, and when it last was."""

    __tablename__ = "schedules"
    name: Mapped[str] = mapped_column(primary_key=True)
    every_seconds: Mapped[int]
    next_at: Mapped[datetime]
    last_at: Mapped[datetime | None]
    last_job_id: Mapped[str | None]
    declared_at: Mapped[datetime]


class ProcessRow(Base):
    """A process that runs, or ran until lately: what db/processes.py reads and writes."""

    __tablename__ = "processes"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    redis_away_since: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]


class Wallet(Base):
    """An organization's money, in micros of one currency. Read-only here."""

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
    """One line of the ledger, never changed. Read-only here."""

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
    """Why a wallet may not spend: one row from its placing to its lifting. Read-only here."""

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


class PaymentRefund(Base):
    """A refund or reversal of a payment: the provider's newest word. Read-only here."""

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
    """A dispute of a payment: what an event or the provider last said of it. Read-only here."""

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


class CallHold(Base):
    """Money set aside for a call, and what became of it. Read-only here."""

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


class Alert(Base):
    """What a person has to know; one of a kind, organization and subject stands at a time."""

    __tablename__ = "alerts"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str]
    organization_id: Mapped[str | None] = mapped_column(ForeignKey("organizations.id"))
    subject: Mapped[str]
    severity: Mapped[str]
    details: Mapped[dict[str, Any]]
    raised_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]


class WalletThreshold(Base):
    """A level below which somebody wants to know; the ledger disarms it and arms it again."""

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


class TopUpSettings(Base):
    """Automatic top-up as it was agreed with an organization, and how its level stands."""

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
    """A top-up that was decided, and what became of it."""

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
    """A signing certificate of PayPal's that was fetched and verified."""

    __tablename__ = "paypal_certificates"
    url: Mapped[str] = mapped_column(primary_key=True)
    pem: Mapped[bytes]
    fetched_at: Mapped[datetime]
