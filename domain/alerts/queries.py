"""List alerts in pages. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Alert

#: Largest number of alerts on one page.
PAGE_MAX = 500


@dataclass(frozen=True)
class AlertView:
    """An alert. `details` depend on its kind."""

    alert_id: int
    kind: str
    organization_id: str | None
    subject: str
    severity: str
    raised_at: datetime
    cleared_at: datetime | None
    details: Mapping[str, Any]


def list_alerts(
    session: Session,
    *,
    organization_id: str | None = None,
    kind: str | None = None,
    cleared: bool = False,
    after: int | None = None,
    limit: int = PAGE_MAX,
) -> list[AlertView]:
    """List active alerts, newest first; with `cleared`, also cleared ones.

    `after` is the last number of the previous page. A page has at most PAGE_MAX alerts.
    """
    statement = select(Alert).order_by(Alert.id.desc()).limit(min(limit, PAGE_MAX))
    if organization_id is not None:
        statement = statement.where(Alert.organization_id == organization_id)
    if kind is not None:
        statement = statement.where(Alert.kind == kind)
    if not cleared:
        statement = statement.where(Alert.cleared_at.is_(None))
    if after is not None:
        statement = statement.where(Alert.id < after)
    rows = session.scalars(statement.execution_options(populate_existing=True))
    return [alert_view(row) for row in rows]


def alert_view(row: Alert) -> AlertView:
    """Copy an alert's row."""
    return AlertView(
        row.id,
        row.kind,
        row.organization_id,
        row.subject,
        row.severity,
        row.raised_at,
        row.cleared_at,
        row.details,
    )
