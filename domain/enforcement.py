"""Enforce an organization's entitlement: freezes, campaigns, calls and Twilio.

enforce_entitlement runs in the transaction that changed a fact. That transaction also changes
freezes, campaigns and the desired state at Twilio. Only requests to a provider are left to jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from base.enums import (
    BlockReason,
    CampaignStatus,
    EndCause,
    FreezeReason,
    PauseReason,
    TwilioStatus,
)
from base.operators import Operator
from db.locks import lock_brands, lock_campaigns, lock_entitlement, lock_wallet
from db.models import Campaign
from domain.alerts.alerts import AlertKind, clear_alerts
from domain.calls.ending import end_live_calls
from domain.entitlement import SubscriptionState, subscription_state, wallet_block
from domain.jobs.staging import stage
from domain.jobs.types import CONVERGE_TWILIO
from domain.wallet import freezes as wallet_freezes

#: The operator name with which this module places and lifts freezes.
SYSTEM = "system"


@dataclass(frozen=True)
class Enforcement:
    """The entitlement that enforce_entitlement found, and what it changed."""

    subscription_state: SubscriptionState
    block: BlockReason | None
    campaigns_paused: int
    campaigns_resumed: int
    calls_ended: int = 0
    #: The jobs that bring the brands' subaccounts in line, by brand.
    subaccount_jobs: Mapping[str, str] = field(default_factory=dict)


def enforce_entitlement(
    session: Session,
    organization_id: str,
    now: datetime,
    *,
    heal: bool = False,
    check_twilio: bool = False,
) -> Enforcement:
    """Bring freezes, campaigns, calls and Twilio in line with the facts.

    With `heal`, a job is staged for each subaccount that is not in line yet. With `check_twilio`, a
    job is staged for every subaccount, so that a worker reads its actual state at Twilio. Replay:
    if everything is in line, nothing changes. Locks the organization, and the rows after it in
    the lock order.

    Raises: OrganizationNotFound.
    """
    state = subscription_state(lock_entitlement(session, organization_id), now)
    wallet = lock_wallet(session, organization_id)
    if wallet is not None:
        _set_subscription_freeze(session, organization_id, state, now)
        wallet = lock_wallet(session, organization_id)
    if wallet is not None and not wallet.owed_micros:
        clear_alerts(session, AlertKind.CALL_SHORTFALL, organization_id, now=now)
    block = wallet_block(session, organization_id, wallet, state, now)
    overridden = (
        state is not SubscriptionState.ACTIVE and block is not BlockReason.SUBSCRIPTION_INACTIVE
    )
    effective = SubscriptionState.ACTIVE if overridden else state
    cause = _end_cause(session, organization_id, effective, now)
    ended = end_live_calls(session, organization_id, cause, now) if cause else 0
    paused, resumed = _pause_or_resume(
        lock_campaigns(session, organization_id), _pause_reason(block), now
    )
    staged = _set_desired_twilio_status(
        session, organization_id, effective, heal=heal, check_twilio=check_twilio
    )
    return Enforcement(state, block, paused, resumed, ended, staged)


def _set_subscription_freeze(
    session: Session, organization_id: str, state: SubscriptionState, now: datetime
) -> None:
    reason = FreezeReason.SUBSCRIPTION_INACTIVE
    if state is SubscriptionState.ACTIVE:
        wallet_freezes.unfreeze(
            session,
            organization_id,
            reason,
            operator=Operator(SYSTEM, "subscription active"),
            now=now,
        )
    else:
        reported = state is SubscriptionState.REPORTED
        why = "end reported" if reported else "subscription inactive"
        wallet_freezes.freeze(
            session, organization_id, reason, operator=Operator(SYSTEM, why), now=now
        )


def _end_cause(
    session: Session, organization_id: str, state: SubscriptionState, now: datetime
) -> EndCause | None:
    """Return why live calls end now; None if they may go on.

    If an end is only reported, live calls go on within their holds.
    """
    if state is SubscriptionState.INACTIVE:
        return EndCause.SUBSCRIPTION_INACTIVE
    freezes, _ = wallet_freezes.active_freezes(session, organization_id, now)
    other_reasons = {row.reason for row in freezes} - {FreezeReason.SUBSCRIPTION_INACTIVE}
    return EndCause.FROZEN_WALLET if other_reasons else None


def _pause_reason(block: BlockReason | None) -> PauseReason | None:
    if block is None:
        return None
    return {
        BlockReason.SUBSCRIPTION_INACTIVE: PauseReason.SUBSCRIPTION_INACTIVE,
        BlockReason.FROZEN_WALLET: PauseReason.WALLET_FROZEN,
        BlockReason.INSUFFICIENT_FUNDS: PauseReason.WALLET_DEPLETED,
    }[block]


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


def _set_desired_twilio_status(
    session: Session,
    organization_id: str,
    state: SubscriptionState,
    *,
    heal: bool,
    check_twilio: bool,
) -> dict[str, str]:
    # While an end is only reported, Twilio keeps its state until the provider confirms the end.
    desired = {
        SubscriptionState.ACTIVE: TwilioStatus.ACTIVE,
        SubscriptionState.INACTIVE: TwilioStatus.SUSPENDED,
    }.get(state)
    staged: dict[str, str] = {}
    for brand in lock_brands(session, organization_id):
        is_changed = brand.twilio_desired != (desired or brand.twilio_desired)
        if desired is not None and is_changed:
            brand.twilio_desired = desired
            brand.twilio_generation += 1
        is_unconverged = heal and brand.twilio_converged != brand.twilio_generation
        if is_changed or is_unconverged or check_twilio:
            staged[brand.id] = stage(session, CONVERGE_TWILIO, organization_id, brand_id=brand.id)
    return staged
