"""Posture: what an organization may do now. Derived from facts each time, never from a verdict.

apply_posture runs in the transaction that changed a fact. What is ours (freezes, campaigns, the
desired state at Twilio) is done there; only the work at a provider is left to a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import (
    CampaignStatus,
    EndCause,
    FreezeReason,
    PauseReason,
    SubscriptionStatus,
    TwilioStatus,
)
from db.locks import (
    lock_brands,
    lock_campaigns,
    lock_standing,
    lock_wallet,
)
from db.models import Campaign, Subscription, Wallet
from domain.alerts.alerts import AlertKind, clear_alerts
from domain.calls.ending import end_live_calls
from domain.jobs.staging import stage
from domain.jobs.types import CONVERGE_TWILIO
from domain.wallet import operations as wallets

#: Who places and lifts what the posture decides.
SYSTEM = "system"


class Standing(StrEnum):
    """What the set of an organization's subscriptions comes to."""

    #: At least one is open at the provider, and no event has claimed otherwise since.
    ACTIVE = "active"
    #: A verified event says that the last open one ended; the provider is not asked yet.
    REPORTED = "reported"
    #: The provider's own word: none is open.
    INACTIVE = "inactive"


class Refusal(StrEnum):
    """Why an organization may not spend."""

    SUBSCRIPTION_INACTIVE = "SUBSCRIPTION_INACTIVE"
    FROZEN_WALLET = "FROZEN_WALLET"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"


@dataclass(frozen=True)
class Posture:
    """What apply_posture found and did."""

    standing: Standing
    refusal: Refusal | None
    campaigns_paused: int
    campaigns_resumed: int
    calls_ended: int = 0
    #: The jobs that bring the brands' subaccounts in line, by brand.
    subaccount_jobs: Mapping[str, str] = field(default_factory=dict)


def standing_of(subscriptions: Sequence[Subscription], now: datetime) -> Standing:
    """This function will derive the standing from the whole set: an ended old one never counts.

    Past due within its grace is active everywhere.
    """
    open_ones = [one for one in subscriptions if _is_open(one, now)]
    if not open_ones:
        return Standing.INACTIVE
    if all(one.closing_reported_at is not None for one in open_ones):
        return Standing.REPORTED
    return Standing.ACTIVE


def can_send(session: Session, organization_id: str, now: datetime) -> Refusal | None:
    """This function will tell why the organization may not spend now; None if it may.

    The one place that answers, for every way of spending. A hint and not a lock: the debit itself
    decides again, under the wallet's lock.
    """
    subscriptions = session.scalars(
        select(Subscription)
        .where(Subscription.organization_id == organization_id)
        .execution_options(populate_existing=True)
    ).all()
    wallet = session.get(Wallet, organization_id, populate_existing=True)
    return _refusal(session, wallet, standing_of(subscriptions, now), organization_id, now)


def apply_posture(
    session: Session,
    organization_id: str,
    now: datetime,
    *,
    heal: bool = False,
    check_twilio: bool = False,
) -> Posture:
    """Bring freezes, campaigns and Twilio's desired state in line with facts.

    With `heal`, a job is staged for each subaccount that was not brought in line so far; with
    `check_twilio`, for every subaccount, so that its actual state is read at Twilio. Replay: where
    all is in line already, nothing changes. Locks the organization and all below it, in the lock
    order. Raises: OrganizationNotFound.
    """
    subscriptions = lock_standing(session, organization_id)
    standing = standing_of(subscriptions, now)
    wallet = lock_wallet(session, organization_id)
    if wallet is not None:
        _freeze_or_lift(session, organization_id, standing, now)
        wallet = lock_wallet(session, organization_id)
    if wallet is not None and not wallet.owed_micros:
        clear_alerts(session, AlertKind.CALL_SHORTFALL, organization_id, now=now)
    refusal = _refusal(session, wallet, standing, organization_id, now)
    overridden = standing is not Standing.ACTIVE and refusal is not Refusal.SUBSCRIPTION_INACTIVE
    effective = Standing.ACTIVE if overridden else standing
    cause = _end_cause(session, organization_id, effective, now)
    ended = end_live_calls(session, organization_id, cause, now) if cause else 0
    paused, resumed = _pause_or_resume(
        lock_campaigns(session, organization_id), _pause_reason(refusal), now
    )
    staged = _desire_twilio(
        session, organization_id, effective, heal=heal, check_twilio=check_twilio
    )
    return Posture(standing, refusal, paused, resumed, ended, staged)


def grace_ends_at(subscription: Subscription) -> datetime | None:
    """This function will give when a past-due subscription stops counting as active."""
    if subscription.past_due_since is None:
        return None
    return subscription.past_due_since + timedelta(seconds=subscription.grace_seconds)


def _is_open(subscription: Subscription, now: datetime) -> bool:
    if subscription.status == SubscriptionStatus.PAST_DUE:
        end = grace_ends_at(subscription)
        return end is not None and now < end
    return subscription.status == SubscriptionStatus.ACTIVE


def _freeze_or_lift(
    session: Session, organization_id: str, standing: Standing, now: datetime
) -> None:
    reason = FreezeReason.SUBSCRIPTION_INACTIVE
    if standing is Standing.ACTIVE:
        wallets.unfreeze(
            session, organization_id, reason, by=SYSTEM, why="subscription active", now=now
        )
    else:
        why = "end reported" if standing is Standing.REPORTED else "subscription inactive"
        wallets.freeze(session, organization_id, reason, by=SYSTEM, why=why, now=now)


def _refusal(
    session: Session,
    wallet: Wallet | None,
    standing: Standing,
    organization_id: str,
    now: datetime,
) -> Refusal | None:
    stopping, overridden = wallets.standing_freezes(session, organization_id, now)
    reasons = {row.reason for row in stopping}
    inactive_allowed = FreezeReason.SUBSCRIPTION_INACTIVE in {row.reason for row in overridden}
    if standing is not Standing.ACTIVE and not inactive_allowed:
        return Refusal.SUBSCRIPTION_INACTIVE
    if reasons - {FreezeReason.SUBSCRIPTION_INACTIVE}:
        return Refusal.FROZEN_WALLET
    if wallet is None or wallet.balance_micros - wallet.held_micros <= 0:
        return Refusal.INSUFFICIENT_FUNDS
    return None


def _end_cause(
    session: Session, organization_id: str, standing: Standing, now: datetime
) -> EndCause | None:
    """Why live calls end now. One whose subscription's end is only reported runs on its hold."""
    if standing is Standing.INACTIVE:
        return EndCause.SUBSCRIPTION_INACTIVE
    stopping, _ = wallets.standing_freezes(session, organization_id, now)
    others = {row.reason for row in stopping} - {FreezeReason.SUBSCRIPTION_INACTIVE}
    return EndCause.FROZEN_WALLET if others else None


def _pause_reason(refusal: Refusal | None) -> PauseReason | None:
    if refusal is None:
        return None
    return {
        Refusal.SUBSCRIPTION_INACTIVE: PauseReason.SUBSCRIPTION_INACTIVE,
        Refusal.FROZEN_WALLET: PauseReason.WALLET_FROZEN,
        Refusal.INSUFFICIENT_FUNDS: PauseReason.WALLET_DEPLETED,
    }[refusal]


def _pause_or_resume(
    campaigns: Sequence[Campaign], reason: PauseReason | None, now: datetime
) -> tuple[int, int]:
    paused = resumed = 0
    for campaign in campaigns:
        if campaign.manually_paused:
            continue
        if reason is not None:
            if campaign.status == CampaignStatus.RUNNING:
                campaign.status = CampaignStatus.PAUSED
                campaign.paused_at = now
                paused += 1
            campaign.pause_reason = reason
        elif campaign.status == CampaignStatus.PAUSED:
            campaign.status = CampaignStatus.RUNNING
            campaign.pause_reason = None
            campaign.paused_at = None
            resumed += 1
    return paused, resumed


def _desire_twilio(
    session: Session, organization_id: str, standing: Standing, *, heal: bool, check_twilio: bool
) -> dict[str, str]:
    # None while an end is only reported: Twilio stays as it is until the provider has confirmed it.
    desired = {
        Standing.ACTIVE: TwilioStatus.ACTIVE,
        Standing.INACTIVE: TwilioStatus.SUSPENDED,
    }.get(standing)
    staged: dict[str, str] = {}
    for brand in lock_brands(session, organization_id):
        moved = brand.twilio_desired != (desired or brand.twilio_desired)
        if desired is not None and moved:
            brand.twilio_desired = desired
            brand.twilio_generation += 1
        is_open = heal and brand.twilio_converged != brand.twilio_generation
        if moved or is_open or check_twilio:
            staged[brand.id] = stage(session, CONVERGE_TWILIO, organization_id, brand_id=brand.id)
    return staged
