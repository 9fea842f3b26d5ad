"""Alerts: conditions that a person must know about."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class Alert(Base):
    """An alert. At most one is raised at a time for a kind, organization and subject."""

    __tablename__ = "alerts"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str]
    organization_id: Mapped[str | None] = mapped_column(ForeignKey("organizations.id"))
    subject: Mapped[str]
    severity: Mapped[str]
    details: Mapped[dict[str, Any]]
    raised_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]
