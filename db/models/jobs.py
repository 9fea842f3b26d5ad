"""The inbox, jobs with their attempts, schedules, processes, and operator actions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    SmallInteger,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class InboxEvent(Base):
    """A verified webhook, byte for byte, stored once per event id of the provider."""

    __tablename__ = "inbox"
    id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    external_id: Mapped[str]
    transmission_id: Mapped[str | None]
    event_type: Mapped[str]
    #: None after the retention time. The row stays, so that a repeated event is recognized.
    body: Mapped[bytes | None]
    body_sha256: Mapped[bytes]
    correlation_id: Mapped[str]
    received_at: Mapped[datetime]
    handled_at: Mapped[datetime | None]
    outcome: Mapped[str | None]


class Job(Base):
    """A job. Its row is authoritative; a message in Redis only notifies of it."""

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
    """One attempt of a job: its worker, its start and end, and its outcome."""

    __tablename__ = "job_attempts"
    job_id: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error: Mapped[str | None]
    traceback: Mapped[str | None]


class OperatorAction(Base):
    """One operator action: the operator, the subject, the reason and the time."""

    __tablename__ = "operator_acts"
    id: Mapped[str] = mapped_column(primary_key=True)
    act: Mapped[str]
    subject: Mapped[str]
    operator: Mapped[str]
    why: Mapped[str]
    acted_at: Mapped[datetime]


class ScheduleRow(Base):
    """A schedule: when its job is staged next, and when it was staged last."""

    __tablename__ = "schedules"
    name: Mapped[str] = mapped_column(primary_key=True)
    every_seconds: Mapped[int]
    next_at: Mapped[datetime]
    last_at: Mapped[datetime | None]
    last_job_id: Mapped[str | None]
    declared_at: Mapped[datetime]


class ProcessRow(Base):
    """A process that runs or ran recently. db/processes.py reads and writes the rows."""

    __tablename__ = "processes"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    redis_away_since: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
