"""Organizations, their brands and campaigns: how they come to be."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CampaignStatus
from base.ids import new_id
from base.outcomes import Refused
from db.locks import lock_organization
from db.models import Brand, Campaign, Organization
from domain.posture import apply_posture
from domain.wallet import open_wallet

#: Longest name of anything, in characters.
NAME_LENGTH_MAX = 200


class InvalidName(Refused):
    """A name is empty or too long."""

    def __init__(self, name: str) -> None:
        super().__init__("INVALID_NAME", f"1 to {NAME_LENGTH_MAX} characters, not {len(name)}")


def create_organization(session: Session, *, name: str, currency: str, now: datetime) -> str:
    """This function will make an organization with an empty wallet and give its id.

    It may not spend yet: its posture needs an active subscription and money. Raises: InvalidName.
    """
    _check_name(name)
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
    """This function will make a brand, with the Twilio subaccount it sends through if it has one.

    The subaccount is brought in line with the organization's posture. Raises: InvalidName,
    OrganizationNotFound.
    """
    _check_name(name)
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
    apply_posture(session, organization_id, now)
    return brand.id


def create_campaign(session: Session, brand: Brand, *, name: str, now: datetime) -> str:
    """This function will make a campaign as a draft, which runs once it is started.

    Raises: InvalidName.
    """
    _check_name(name)
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
