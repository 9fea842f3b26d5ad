"""Create organizations, their brands and their campaigns."""

from __future__ import annotations

import re
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import CampaignStatus
from base.ids import new_id
from base.money import exponent_of
from base.outcomes import Refused
from base.problems.operators import INVALID_NAME, INVALID_SUBACCOUNT
from db.locks import BrandNotFound, lock_organization
from db.models import Brand, Campaign, Organization
from domain.enforcement import enforce_entitlement
from domain.wallet.operations import open_wallet

#: Longest name of an organization, brand or campaign, in characters.
NAME_LENGTH_MAX = 200
_SUBACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}")


class InvalidName(Refused):
    """A name is empty or too long."""

    def __init__(self, name: str) -> None:
        super().__init__(INVALID_NAME, f"1 to {NAME_LENGTH_MAX} characters, not {len(name)}")


class InvalidSubaccount(Refused):
    """The id is not a Twilio subaccount's, or another brand has that subaccount."""

    def __init__(self, sid: str) -> None:
        super().__init__(INVALID_SUBACCOUNT, sid)


def create_organization(session: Session, *, name: str, currency: str, now: datetime) -> str:
    """Create an organization with an empty wallet and return its id.

    The organization may not spend until it has an active subscription and money. Raises:
    InvalidName; InvalidAmount if ISO 4217 does not define the currency.
    """
    _check_name(name)
    exponent_of(currency)
    organization = Organization(id=new_id("org"), name=name, created_at=now)
    session.add(organization)
    session.flush()
    open_wallet(session, organization.id, currency, now)
    return organization.id


def create_brand(
    session: Session,
    organization_id: str,
    *,
    name: str,
    twilio_subaccount_sid: str | None,
    now: datetime,
) -> str:
    """Create a brand and return its id.

    If the brand has a Twilio subaccount, a job brings it in line with the organization's
    entitlement. Raises: InvalidName, InvalidSubaccount, OrganizationNotFound.
    """
    _check_name(name)
    _check_subaccount(session, twilio_subaccount_sid)
    brand = Brand(
        id=new_id("brd"),
        organization_id=organization_id,
        name=name,
        twilio_subaccount_sid=twilio_subaccount_sid,
        created_at=now,
    )
    lock_organization(session, organization_id)
    session.add(brand)
    session.flush()
    enforce_entitlement(session, organization_id, now, heal=True)
    return brand.id


def create_campaign(session: Session, brand_id: str, *, name: str, now: datetime) -> str:
    """Create a campaign as a draft and return its id. An operator starts it later.

    Raises: InvalidName, BrandNotFound.
    """
    _check_name(name)
    brand = session.get(Brand, brand_id)
    if brand is None:
        raise BrandNotFound(brand_id)
    campaign = Campaign(
        id=new_id("cmp"),
        organization_id=brand.organization_id,
        brand_id=brand.id,
        name=name,
        status=CampaignStatus.DRAFT,
        created_at=now,
    )
    session.add(campaign)
    session.flush()
    return campaign.id


def _check_name(name: str) -> None:
    if not 0 < len(name.strip()) <= NAME_LENGTH_MAX or len(name) > NAME_LENGTH_MAX:
        raise InvalidName(name)


def _check_subaccount(session: Session, sid: str | None) -> None:
    if sid is None:
        return
    other_brand = session.scalar(select(Brand.id).where(Brand.twilio_subaccount_sid == sid))
    if not _SUBACCOUNT_SID.fullmatch(sid) or other_brand is not None:
        raise InvalidSubaccount(sid)
