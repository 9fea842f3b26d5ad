"""List an organization's rates and entry points. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from db.models.calls import CallRate, EntryPoint
from domain.wallet.queries import currency_of

#: Largest number of entry points on one page.
PAGE_MAX = 1_000


@dataclass(frozen=True)
class RateView:
    """The price of a minute on a route, and the operator's reason for it."""

    route: str
    per_minute_micros: int
    increment_seconds: int
    minimum_micros: int
    currency: str
    set_by: str
    reason: str
    set_at: datetime


@dataclass(frozen=True)
class EntryPointView:
    """A number, assistant or campaign that leads calls to an organization."""

    kind: str
    external_id: str
    organization_id: str
    assistant_id: str | None
    brand_id: str | None
    created_at: datetime


def list_rates(session: Session, organization_id: str) -> list[RateView]:
    """List an organization's rates, ordered by route. Raises: WalletNotFound."""
    currency = currency_of(session, organization_id)
    rows = session.scalars(
        select(CallRate)
        .where(CallRate.organization_id == organization_id)
        .order_by(CallRate.route)
        .execution_options(populate_existing=True)
    )
    return [
        RateView(
            row.route,
            row.micros_per_minute,
            row.increment_seconds,
            row.minimum_micros,
            currency,
            row.set_by,
            row.set_why,
            row.set_at,
        )
        for row in rows
    ]


def list_entry_points(
    session: Session,
    organization_id: str,
    *,
    after: tuple[str, str] | None = None,
    limit: int = PAGE_MAX,
) -> list[EntryPointView]:
    """List an organization's entry points, ordered by kind and id.

    `after` is the kind and id of the previous page's last entry point. Bounds: PAGE_MAX entry
    points.
    """
    position = tuple_(EntryPoint.kind, EntryPoint.external_id)
    statement = select(EntryPoint).where(EntryPoint.organization_id == organization_id)
    if after is not None:
        statement = statement.where(position > after)
    rows = session.scalars(
        statement.order_by(EntryPoint.kind, EntryPoint.external_id)
        .limit(min(limit, PAGE_MAX))
        .execution_options(populate_existing=True)
    )
    return [
        EntryPointView(
            row.kind,
            row.external_id,
            row.organization_id,
            row.assistant_id,
            row.brand_id,
            row.created_at,
        )
        for row in rows
    ]
