"""Row locks, which every transaction takes in one order to avoid deadlocks.

The order is: job, inbox event, organization, subscription, payment, wallet (with its freezes, holds
and thresholds), call, campaign, brand.

All locks are FOR NO KEY UPDATE. Plain FOR UPDATE would block inserts of rows that refer to the
locked row.
"""

from __future__ import annotations

import time
from typing import TypeVar

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import CampaignStatus
from base.log import get_logger
from base.outcomes import Refused
from base.problems.operators import BRAND_NOT_FOUND
from base.problems.wallet import ORGANIZATION_NOT_FOUND
from db.models import Base, Brand, Campaign, Organization, Subscription, Wallet
from db.models.calls import IS_LIVE, Call

log = get_logger(__name__)
M = TypeVar("M", bound=Base)

#: Seconds after which a wait for a wallet's lock is logged. Such a wait delays the money of one
#: organization. After twice this time, the server cancels the statement.
LOCK_WAIT_SECONDS = 1.0


class OrganizationNotFound(Refused):
    """No organization has this id."""

    def __init__(self, organization_id: str) -> None:
        super().__init__(ORGANIZATION_NOT_FOUND, organization_id, organization=organization_id)


class BrandNotFound(Refused):
    """No brand has this id, or the brand has no subaccount."""

    def __init__(self, brand_id: str) -> None:
        super().__init__(BRAND_NOT_FOUND, brand_id, brand=brand_id)


def lock_entitlement(session: Session, organization_id: str) -> list[Subscription]:
    """Lock an organization and its subscriptions, which are locked before its wallet.

    Raises: OrganizationNotFound.
    """
    lock_organization(session, organization_id)
    return lock_subscriptions(session, organization_id)


def lock_organization(session: Session, organization_id: str) -> Organization:
    """Lock one organization's row. Raises: OrganizationNotFound."""
    organization = _lock_row(session, Organization, organization_id)
    if organization is None:
        raise OrganizationNotFound(organization_id)
    return organization


def lock_subscriptions(session: Session, organization_id: str) -> list[Subscription]:
    """Lock all subscriptions of an organization, oldest first."""
    return list(
        session.scalars(
            select(Subscription)
            .where(Subscription.organization_id == organization_id)
            .order_by(Subscription.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    )


def lock_wallet(session: Session, organization_id: str) -> Wallet | None:
    """Lock a wallet with the ledger's function; return None if there is no wallet."""
    began = time.monotonic()
    try:
        session.execute(text("SELECT wallet_lock(:id)"), {"id": organization_id})
    finally:
        warn_if_waited(began, organization_id)
    return session.get(Wallet, organization_id, populate_existing=True)


def warn_if_waited(began: float, *organization_ids: str) -> None:
    """Log `lock_wait` if a statement that locks these wallets took too long.

    `began` is the statement's start on the monotonic clock. The statement spends nearly all of
    its time waiting for the lock.
    """
    seconds = time.monotonic() - began
    if seconds > LOCK_WAIT_SECONDS:
        log.warning(
            "lock_wait",
            organization=organization_ids[0],
            wallets=len(organization_ids),
            waited_ms=round(seconds * 1000),
        )


def lock_call(session: Session, organization_id: str, call_id: str) -> Call | None:
    """Lock one call's row; a caller that needs the wallet too locks the wallet first."""
    return session.get(
        Call,
        (organization_id, call_id),
        with_for_update={"key_share": True},
        populate_existing=True,
    )


def lock_calls(session: Session, organization_id: str, call_ids: list[str]) -> list[Call]:
    """Lock those of the named calls that exist in the organization."""
    return list(
        session.scalars(
            select(Call)
            .where(Call.organization_id == organization_id, Call.id.in_(call_ids))
            .order_by(Call.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    )


def lock_live_calls(session: Session, organization_id: str) -> list[Call]:
    """Lock the organization's calls that have neither ended nor been settled."""
    return list(
        session.scalars(
            select(Call)
            .where(Call.organization_id == organization_id, IS_LIVE)
            .order_by(Call.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    )


def lock_campaigns(session: Session, organization_id: str) -> list[Campaign]:
    """Lock the organization's running and paused campaigns."""
    return list(
        session.scalars(
            select(Campaign)
            .where(
                Campaign.organization_id == organization_id,
                Campaign.status.in_((CampaignStatus.RUNNING, CampaignStatus.PAUSED)),
            )
            .order_by(Campaign.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    )


def lock_brands(session: Session, organization_id: str) -> list[Brand]:
    """Lock the organization's brands that have a Twilio subaccount."""
    return list(
        session.scalars(
            select(Brand)
            .where(
                Brand.organization_id == organization_id, Brand.twilio_subaccount_sid.is_not(None)
            )
            .order_by(Brand.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    )


def lock_brand(session: Session, brand_id: str) -> Brand | None:
    """Lock one brand's row; return None if it does not exist."""
    return _lock_row(session, Brand, brand_id)


def _lock_row(session: Session, model: type[M], key: str) -> M | None:
    return session.get(model, key, with_for_update={"key_share": True}, populate_existing=True)
