"""Decide whether an organization may spend, and why not.

Everything is derived from facts each time it is needed. This module reads only; enforcement.py
brings freezes, campaigns, calls and Twilio in line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import BlockReason, FreezeReason, SubscriptionStatus
from db.models import Subscription, Wallet
from domain.wallet import freezes as wallet_freezes
from domain.wallet.freezes import ActiveFreezes


class SubscriptionState(StrEnum):
    """The state that an organization's subscriptions have together."""

    #: At least one is open at the provider, and no event has reported its end since.
    ACTIVE = "active"
    #: A verified event reports that the last open one ended. The provider was not read since.
    REPORTED = "reported"
    #: The provider's API reports that none is open.
    INACTIVE = "inactive"


def spending_block(session: Session, organization_id: str, now: datetime) -> BlockReason | None:
    """Return why the organization may not spend now; None if it may.

    Every way of spending asks this function. The answer is not locked: the debit or hold itself
    decides again under the wallet's lock.
    """
    return spending_blocks(session, (organization_id,), now)[organization_id]


def spending_blocks(
    session: Session, organization_ids: Collection[str], now: datetime
) -> dict[str, BlockReason | None]:
    """Return for each organization why it may not spend now; None if it may.

    The number of statements does not depend on the number of organizations.
    """
    subscriptions: dict[str, list[Subscription]] = defaultdict(list)
    for one in session.scalars(
        select(Subscription)
        .where(Subscription.organization_id.in_(organization_ids))
        .execution_options(populate_existing=True)
    ):
        subscriptions[one.organization_id].append(one)
    wallets = {
        one.organization_id: one
        for one in session.scalars(
            select(Wallet)
            .where(Wallet.organization_id.in_(organization_ids))
            .execution_options(populate_existing=True)
        )
    }
    freezes = wallet_freezes.active_freezes_of(session, organization_ids, now)
    return {
        key: _block(wallets.get(key), subscription_state(subscriptions[key], now), freezes[key])
        for key in organization_ids
    }


def wallet_block(
    session: Session,
    organization_id: str,
    wallet: Wallet | None,
    state: SubscriptionState,
    now: datetime,
) -> BlockReason | None:
    """Return why an organization in this state may not spend; None if it may.

    If an operator has overridden the freeze for an inactive subscription, the subscription counts
    as active.
    """
    return _block(wallet, state, wallet_freezes.active_freezes(session, organization_id, now))


def subscription_state(subscriptions: Sequence[Subscription], now: datetime) -> SubscriptionState:
    """Derive the state of all of an organization's subscriptions together.

    An old subscription that ended never counts. A subscription that is past due counts as
    active until its grace ends.
    """
    open_ones = [one for one in subscriptions if _is_open(one, now)]
    if not open_ones:
        return SubscriptionState.INACTIVE
    if all(one.closing_reported_at is not None for one in open_ones):
        return SubscriptionState.REPORTED
    return SubscriptionState.ACTIVE


def grace_ends_at(subscription: Subscription) -> datetime | None:
    """Return when a past-due subscription stops counting as active, or None."""
    if subscription.past_due_since is None:
        return None
    return subscription.past_due_since + timedelta(seconds=subscription.grace_seconds)


def _block(
    wallet: Wallet | None, state: SubscriptionState, active: ActiveFreezes
) -> BlockReason | None:
    freezes, overridden = active
    inactive_allowed = FreezeReason.SUBSCRIPTION_INACTIVE in {row.reason for row in overridden}
    if state is not SubscriptionState.ACTIVE and not inactive_allowed:
        return BlockReason.SUBSCRIPTION_INACTIVE
    if {row.reason for row in freezes} - {FreezeReason.SUBSCRIPTION_INACTIVE}:
        return BlockReason.FROZEN_WALLET
    if wallet is None or wallet.balance_micros - wallet.held_micros <= 0:
        return BlockReason.INSUFFICIENT_FUNDS
    return None


def _is_open(subscription: Subscription, now: datetime) -> bool:
    if subscription.status == SubscriptionStatus.PAST_DUE:
        end = grace_ends_at(subscription)
        return end is not None and now < end
    return subscription.status == SubscriptionStatus.ACTIVE
