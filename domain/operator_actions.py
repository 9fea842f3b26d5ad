"""Operator actions, with their consequences in the same commit.

Every action that concerns money records the operator's name and reason. An action whose rows change
again later is also recorded in `operator_acts`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import CampaignStatus, FreezeReason, PauseReason, Provider
from base.operators import Operator
from base.outcomes import Refused
from base.problems.operators import CAMPAIGN_NOT_FOUND
from base.problems.wallet import FREEZE_FOLLOWS_SUBSCRIPTION
from db.locks import lock_entitlement, lock_organization
from db.models import Campaign, TopUpSettings, WalletThreshold
from domain.calls.tick import tick_debtors_at_once
from domain.enforcement import Enforcement, enforce_entitlement
from domain.operator_notes import record_action
from domain.top_ups import settings as top_up_settings
from domain.top_ups.rule import TopUpTerms
from domain.top_ups.settings import Method
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallets
from domain.wallet import thresholds
from domain.wallet.ledger import WalletOutcome, call_ledger, clamp_amount


class CampaignNotFound(Refused):
    """The campaign does not exist, or its status does not allow the action."""

    def __init__(self, campaign_id: str) -> None:
        super().__init__(CAMPAIGN_NOT_FOUND, campaign_id, campaign=campaign_id)


def freeze_manually(
    session: Session, organization_id: str, *, operator: Operator, now: datetime
) -> Enforcement:
    """Place the manual freeze, which only an operator lifts.

    Replay: an active manual freeze is left unchanged. Raises: OrganizationNotFound, WalletNotFound.
    """
    lock_entitlement(session, organization_id)
    wallet_freezes.freeze(session, organization_id, FreezeReason.MANUAL, operator=operator, now=now)
    return enforce_entitlement(session, organization_id, now)


def lift_manually(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    operator: Operator,
    now: datetime,
) -> Enforcement:
    """Lift a freeze, except the subscription's, which follows the provider alone.

    Raises: OrganizationNotFound, WalletNotFound, UnknownFreeze; Refused
    FREEZE_FOLLOWS_SUBSCRIPTION for `subscription_inactive`, which an operator may override for a
    time instead.
    """
    if reason is FreezeReason.SUBSCRIPTION_INACTIVE:
        raise Refused(
            FREEZE_FOLLOWS_SUBSCRIPTION,
            "this freeze follows the subscription; override it for a time instead",
        )
    lock_entitlement(session, organization_id)
    if not wallet_freezes.unfreeze(session, organization_id, reason, operator=operator, now=now):
        raise wallet_freezes.UnknownFreeze(organization_id, reason)
    return enforce_entitlement(session, organization_id, now)


def override_manually(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    until: datetime,
    operator: Operator,
    now: datetime,
) -> Enforcement:
    """Let the organization spend until a given time although a freeze is active.

    Raises: OrganizationNotFound, WalletNotFound, UnknownFreeze; Refused INVALID_OVERRIDE.
    """
    lock_entitlement(session, organization_id)
    wallet_freezes.override(
        session, organization_id, reason, until=until, operator=operator, now=now
    )
    return enforce_entitlement(session, organization_id, now)


def correct_manually(
    session: Session,
    organization_id: str,
    *,
    key: str,
    amount_micros: int,
    currency: str,
    operator: Operator,
    now: datetime,
) -> WalletOutcome:
    """Correct a balance with a separate entry; see operations.correct.

    Raises: OrganizationNotFound.
    """
    lock_entitlement(session, organization_id)
    outcome = wallets.correct(
        session,
        organization_id,
        key=key,
        amount_micros=amount_micros,
        currency=currency,
        operator=operator,
        now=now,
    )
    if outcome.ok:
        enforce_entitlement(session, organization_id, now)
    return outcome


def set_debt_limit_manually(
    session: Session, organization_id: str, *, limit_micros: int, operator: Operator, now: datetime
) -> WalletOutcome:
    """Approve how far below zero the cost of calls may take the available money.

    Units: `limit_micros` is 0 to 10^15. Only the cost of a call uses the limit. It pays no
    outstanding amount, so the entitlement does not change. Live calls that use some of the limit
    become due for their tick at once. The tick takes back what a lower limit no longer allows.
    Replay: the same limit again changes nothing. Refuses: DEBT_ABOVE_LIMIT if the wallet is further
    below zero now; INVALID_AMOUNT, WALLET_NOT_FOUND. Raises: OrganizationNotFound.
    """
    lock_organization(session, organization_id)
    outcome = call_ledger(
        session,
        "wallet_set_debt_limit(:org, :limit, :operator, :why, :now)",
        org=organization_id,
        limit=clamp_amount(limit_micros),
        operator=operator.name,
        why=operator.reason,
        now=now,
    )
    if outcome.ok and not outcome.replayed:
        tick_debtors_at_once(session, organization_id, now)
    return outcome


def set_thresholds_manually(
    session: Session,
    organization_id: str,
    micros: Sequence[int],
    *,
    operator: Operator,
    now: datetime,
) -> list[WalletThreshold]:
    """Replace the wallet's thresholds; see thresholds.set_thresholds.

    Raises: what `set_thresholds` raises.
    """
    act = "thresholds.set" if micros else "thresholds.clear"
    record_action(session, act, organization_id, operator=operator, now=now)
    return thresholds.set_thresholds(session, organization_id, micros, operator=operator, now=now)


def rearm_thresholds_manually(
    session: Session, organization_id: str, *, operator: Operator, now: datetime
) -> list[WalletThreshold]:
    """Arm thresholds again without a top-up; see thresholds.rearm_thresholds.

    Raises: what `rearm_thresholds` raises.
    """
    record_action(session, "thresholds.rearm", organization_id, operator=operator, now=now)
    return thresholds.rearm_thresholds(session, organization_id, operator=operator, now=now)


def switch_top_up_on_manually(
    session: Session,
    organization_id: str,
    terms: TopUpTerms,
    method: Method,
    *,
    chargeable: Collection[Provider],
    operator: Operator,
    now: datetime,
) -> TopUpSettings:
    """Switch automatic top-up on or change its terms; see top_ups/settings.py.

    Raises: what `switch_on` raises.
    """
    record_action(session, "top_up.on", organization_id, operator=operator, now=now)
    return top_up_settings.switch_on(
        session, organization_id, terms, method, chargeable=chargeable, operator=operator, now=now
    )


def switch_top_up_off_manually(
    session: Session, organization_id: str, *, operator: Operator, now: datetime
) -> TopUpSettings:
    """Switch automatic top-up off; see top_ups/settings.py.

    Raises: what `switch_off` raises.
    """
    record_action(session, "top_up.off", organization_id, operator=operator, now=now)
    return top_up_settings.switch_off(session, organization_id, operator=operator, now=now)


def enforce_manually(
    session: Session, organization_id: str, *, operator: Operator, now: datetime
) -> Enforcement:
    """Derive the entitlement again, enforce it, and read every subaccount at Twilio.

    `subaccount_jobs` of the result names the jobs that read and repair; see
    domain/subaccount_checks.py. Raises: OrganizationNotFound.
    """
    done = enforce_entitlement(session, organization_id, now, heal=True, check_twilio=True)
    record_action(session, "organization.enforce", organization_id, operator=operator, now=now)
    return done


def start_campaign_manually(
    session: Session, campaign_id: str, *, operator: Operator, now: datetime
) -> Campaign:
    """Start or resume a campaign and record the action; see start_campaign.

    Raises: CampaignNotFound.
    """
    campaign = start_campaign(session, campaign_id, now)
    record_action(session, "campaign.start", campaign.id, operator=operator, now=now)
    return campaign


def pause_campaign_manually(
    session: Session, campaign_id: str, *, operator: Operator, now: datetime
) -> Campaign:
    """Pause a campaign, which only an operator resumes; see pause_campaign.

    Raises: CampaignNotFound.
    """
    campaign = pause_campaign(session, campaign_id, now)
    record_action(session, "campaign.pause", campaign.id, operator=operator, now=now)
    return campaign


def start_campaign(session: Session, campaign_id: str, now: datetime) -> Campaign:
    """Start a draft or resume a manually paused campaign, if spending is allowed.

    If the organization may not spend, the campaign is paused for that reason and resumes
    automatically. Replay: a running campaign is left unchanged. Raises: CampaignNotFound.
    """
    campaign = _campaign(session, campaign_id)
    if campaign.status == CampaignStatus.DRAFT or campaign.manually_paused:
        campaign.manually_paused = False
        campaign.status = CampaignStatus.RUNNING
        campaign.pause_reason = None
        campaign.paused_at = None
    session.flush()
    enforce_entitlement(session, campaign.organization_id, now)
    return campaign


def pause_campaign(session: Session, campaign_id: str, now: datetime) -> Campaign:
    """Pause a campaign manually: only start_campaign resumes it.

    Replay: a manually paused campaign is left unchanged. Raises: CampaignNotFound.
    """
    campaign = _campaign(session, campaign_id)
    if campaign.status not in (CampaignStatus.RUNNING, CampaignStatus.PAUSED):
        raise CampaignNotFound(campaign_id)
    campaign.manually_paused = True
    campaign.status = CampaignStatus.PAUSED
    campaign.pause_reason = PauseReason.MANUAL_PAUSE
    campaign.paused_at = campaign.paused_at or now
    session.flush()
    return campaign


def _campaign(session: Session, campaign_id: str) -> Campaign:
    """Read the campaign under its organization's lock, which every change of it holds."""
    found = session.get(Campaign, campaign_id)
    if found is not None:
        lock_entitlement(session, found.organization_id)
        session.refresh(found)
    if found is None or found.status in (CampaignStatus.COMPLETED, CampaignStatus.CANCELLED):
        raise CampaignNotFound(campaign_id)
    return found
