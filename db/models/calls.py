"""The mapped tables of calls. A call's money is in `db.models.CallHold`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, FetchedValue, ForeignKey, Text, and_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from base.enums import CallStatus
from db.models import Base


class Call(Base):
    """One call: its facts, its metering, its ending and its cost."""

    __tablename__ = "calls"
    organization_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    provider_call_id: Mapped[str | None]
    twilio_call_sid: Mapped[str | None]
    twilio_account_sid: Mapped[str | None]
    direction: Mapped[str]
    our_party: Mapped[str | None]
    their_party: Mapped[str | None]
    assistant_id: Mapped[str | None]
    phone_number_id: Mapped[str | None]
    appointment_id: Mapped[str | None]
    campaign_id: Mapped[str | None]
    contact_id: Mapped[str | None]
    status: Mapped[str]
    refusal: Mapped[str | None]
    origin: Mapped[str | None]
    pairing_token: Mapped[str | None]
    merged_into: Mapped[str | None]
    withheld_for: Mapped[str | None]
    fail_open: Mapped[bool] = mapped_column(default=False)
    currency: Mapped[str]
    micros_per_minute: Mapped[int] = mapped_column(BigInteger)
    increment_seconds: Mapped[int]
    minimum_micros: Mapped[int] = mapped_column(BigInteger)
    rate_route: Mapped[str | None]
    number_seen: Mapped[bool] = mapped_column(default=False)
    max_duration_seconds: Mapped[int | None]
    debt_micros: Mapped[int] = mapped_column(BigInteger, default=0)
    metered_from: Mapped[datetime | None]
    tick_at: Mapped[datetime | None]
    seen_at: Mapped[datetime | None]
    asked_at: Mapped[datetime | None]
    warned_at: Mapped[datetime | None]
    end_cause: Mapped[str | None]
    end_decided_at: Mapped[datetime | None]
    end_told_at: Mapped[datetime | None]
    end_rounds: Mapped[int] = mapped_column(default=0)
    ended_seen_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    ended_reason: Mapped[str | None]
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    provider_cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    oddities: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    settled_by: Mapped[str | None]
    settled_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


#: A live call has neither ended nor been settled. This is the condition of the index calls_live.
IS_LIVE = and_(Call.status != CallStatus.ENDED, Call.settled_at.is_(None))


class CallTimeline(Base):
    """One event in a call's life. Rows are never changed."""

    __tablename__ = "call_timeline"
    organization_id: Mapped[str] = mapped_column(primary_key=True)
    call_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    what: Mapped[str]
    detail: Mapped[str] = mapped_column(default="")


class CallRate(Base):
    """The price of a minute on a route."""

    __tablename__ = "call_rates"
    organization_id: Mapped[str] = mapped_column(
        ForeignKey("wallets.organization_id"), primary_key=True
    )
    route: Mapped[str] = mapped_column(primary_key=True)
    micros_per_minute: Mapped[int] = mapped_column(BigInteger)
    increment_seconds: Mapped[int]
    minimum_micros: Mapped[int] = mapped_column(BigInteger)
    set_by: Mapped[str]
    set_why: Mapped[str]
    set_at: Mapped[datetime]


class CallTerms(Base):
    """The rules for an organization's calls: holds, durations, faults and messages."""

    __tablename__ = "call_terms"
    organization_id: Mapped[str] = mapped_column(
        ForeignKey("wallets.organization_id"), primary_key=True
    )
    step_seconds: Mapped[int]
    margin_seconds: Mapped[int]
    warn_before_seconds: Mapped[int]
    max_duration_seconds: Mapped[int]
    fail_open: Mapped[bool]
    fail_open_seconds: Mapped[int]
    fault_policy: Mapped[str]
    fault_waived_minutes: Mapped[int]
    refusal_text: Mapped[str]
    warning_text: Mapped[str]
    ending_text: Mapped[str]
    set_by: Mapped[str]
    set_why: Mapped[str]
    set_at: Mapped[datetime]
    fail_open_key: Mapped[str] = mapped_column(server_default=FetchedValue())


class EntryPoint(Base):
    """An entry point: an assistant, phone number or campaign, and its organization."""

    __tablename__ = "call_doors"
    kind: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("wallets.organization_id"))
    assistant_id: Mapped[str | None]
    brand_id: Mapped[str | None] = mapped_column(ForeignKey("brands.id"))
    created_at: Mapped[datetime]
