"""Read organizations with their subscriptions, brands and campaigns. Reads only.

Every list is read in a fixed number of statements, however many rows it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import BlockReason
from db.locks import OrganizationNotFound
from db.models import Brand, Campaign, Organization, Subscription, Wallet
from domain.entitlement import (
    SubscriptionState,
    spending_blocks,
    subscription_state,
    wallet_block,
)
from domain.wallet.queries import WalletView, read_wallet

#: Largest number of organizations or campaigns on one page.
PAGE_MAX = 1_000
#: Largest number of campaigns that are shown with their organization. `list_campaigns` has them
#: all.
CAMPAIGNS_SHOWN_MAX = 100


@dataclass(frozen=True)
class OrganizationSummary:
    """One organization in a list. `block` is why it may not spend; None if it may."""

    organization_id: str
    name: str
    block: BlockReason | None


@dataclass(frozen=True)
class SubscriptionView:
    """A subscription, as the provider last showed it and events reported it."""

    subscription_id: str
    provider: str
    status: str
    closing_reported_at: datetime | None
    refreshed_at: datetime | None


@dataclass(frozen=True)
class BrandView:
    """A brand and the state of its Twilio subaccount."""

    brand_id: str
    name: str
    subaccount_sid: str | None
    actual_state: str | None
    desired_state: str
    problem: str | None
    generation: int


@dataclass(frozen=True)
class CampaignView:
    """A campaign, and why it is paused, if it is."""

    campaign_id: str
    organization_id: str
    brand_id: str
    name: str
    status: str
    pause_reason: str | None


@dataclass(frozen=True)
class OrganizationView:
    """An organization with everything that decides whether it may spend."""

    organization_id: str
    name: str
    subscription_state: SubscriptionState
    block: BlockReason | None
    wallet: WalletView
    subscriptions: list[SubscriptionView]
    brands: list[BrandView]
    #: The newest campaigns, and whether there are more.
    campaigns: list[CampaignView]
    has_more_campaigns: bool


def require_organization(session: Session, organization_id: str) -> None:
    """Raise OrganizationNotFound unless the organization exists."""
    if session.get(Organization, organization_id) is None:
        raise OrganizationNotFound(organization_id)


def list_organizations(
    session: Session, now: datetime, *, after: str | None = None, limit: int
) -> list[OrganizationSummary]:
    """List organizations, newest first; `after` is the last id of the previous page.

    A page has at most PAGE_MAX organizations.
    """
    query = select(Organization.id, Organization.name).order_by(Organization.id.desc())
    if after is not None:
        query = query.where(Organization.id < after)
    rows = session.execute(query.limit(min(limit, PAGE_MAX))).all()
    blocks = spending_blocks(session, [row.id for row in rows], now)
    return [OrganizationSummary(row.id, row.name, blocks[row.id]) for row in rows]


def read_organization(session: Session, organization_id: str, now: datetime) -> OrganizationView:
    """Read an organization and everything that decides whether it may spend.

    Raises: OrganizationNotFound, WalletNotFound.
    """
    organization = session.get(Organization, organization_id, populate_existing=True)
    if organization is None:
        raise OrganizationNotFound(organization_id)
    subscriptions = session.scalars(
        select(Subscription)
        .where(Subscription.organization_id == organization_id)
        .order_by(Subscription.id)
        .execution_options(populate_existing=True)
    ).all()
    brands = session.scalars(
        select(Brand)
        .where(Brand.organization_id == organization_id)
        .order_by(Brand.id)
        .execution_options(populate_existing=True)
    )
    campaigns = list_campaigns(
        session, organization_id=organization_id, limit=CAMPAIGNS_SHOWN_MAX + 1
    )
    # The block follows from the subscriptions that are shown beside it.
    state = subscription_state(subscriptions, now)
    wallet = session.get(Wallet, organization_id, populate_existing=True)
    return OrganizationView(
        organization_id,
        organization.name,
        state,
        wallet_block(session, organization_id, wallet, state, now),
        read_wallet(session, organization_id, now),
        [_subscription(row) for row in subscriptions],
        [_brand(row) for row in brands],
        campaigns[:CAMPAIGNS_SHOWN_MAX],
        len(campaigns) > CAMPAIGNS_SHOWN_MAX,
    )


def list_campaigns(
    session: Session,
    *,
    organization_id: str | None = None,
    after: str | None = None,
    limit: int,
) -> list[CampaignView]:
    """List campaigns, newest first; `after` is the last id of the previous page.

    A page has at most PAGE_MAX campaigns.
    """
    query = select(Campaign).order_by(Campaign.id.desc())
    if organization_id is not None:
        query = query.where(Campaign.organization_id == organization_id)
    if after is not None:
        query = query.where(Campaign.id < after)
    page = query.limit(min(limit, PAGE_MAX)).execution_options(populate_existing=True)
    return [
        CampaignView(
            row.id, row.organization_id, row.brand_id, row.name, row.status, row.pause_reason
        )
        for row in session.scalars(page)
    ]


def _subscription(row: Subscription) -> SubscriptionView:
    return SubscriptionView(
        row.external_id, row.provider, row.status, row.closing_reported_at, row.looked_at
    )


def _brand(row: Brand) -> BrandView:
    return BrandView(
        row.id,
        row.name,
        row.twilio_subaccount_sid,
        row.twilio_actual,
        row.twilio_desired,
        row.twilio_problem,
        row.twilio_generation,
    )
