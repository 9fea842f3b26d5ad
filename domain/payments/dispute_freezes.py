"""Place and lift the freezes of disputes and outstanding amounts, in jobs.

Each job reads its cause (a dispute or an outstanding amount) again, and only then decides. Only an
operator places or lifts a manual freeze.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import DisputeState, FreezeReason, Provider
from base.operators import Operator
from base.outcomes import Refused
from base.problems.wallet import FREEZE_IS_MANUAL, UNKNOWN_REASON
from db.locks import lock_entitlement, lock_wallet
from db.models import Wallet, WalletFreeze
from domain.enforcement import SYSTEM, Enforcement, enforce_entitlement
from domain.payments.settlements import known_dispute
from domain.wallet import freezes as wallet_freezes
from domain.wallet.ledger import WalletNotFound

_SHORTFALL_REASONS = (FreezeReason.REFUND_SHORTFALL, FreezeReason.CALL_SHORTFALL)
_UNDECIDED_STATES = (DisputeState.REPORTED, DisputeState.OPEN)


def cause_of_dispute(provider: Provider, external_id: str) -> str:
    """Return the text that names a dispute as the cause of a freeze."""
    return f"{provider}:{external_id}"


def place_freeze(
    session: Session, organization_id: str, reason: str, cause: str, now: datetime
) -> Enforcement:
    """Freeze the wallet if the cause still exists, and enforce the entitlement.

    If an operator has lifted the freeze since the cause arose, no freeze is placed. Replay: an
    active freeze is left unchanged. Raises: OrganizationNotFound, WalletNotFound; Refused
    UNKNOWN_REASON, or FREEZE_IS_MANUAL for a manual freeze.
    """
    freeze_reason = _parse_reason(reason)
    _lock_organization_and_wallet(session, organization_id)
    since = _active_since(session, organization_id, freeze_reason, cause)
    if since is not None and not _lifted_manually(
        session, organization_id, freeze_reason, cause, since
    ):
        why = f"{freeze_reason} {cause}"
        wallet_freezes.freeze(
            session,
            organization_id,
            freeze_reason,
            operator=Operator(SYSTEM, why),
            now=now,
            cause=cause,
        )
    return enforce_entitlement(session, organization_id, now)


def lift_freeze(
    session: Session, organization_id: str, reason: str, cause: str, now: datetime
) -> Enforcement:
    """Lift one cause's freeze if the cause is gone, and enforce the entitlement.

    Freezes with other causes and reasons stay. A `subscription_inactive` freeze is left to
    `enforce_entitlement`. Replay: no freeze is left to lift. Raises: the same as place_freeze.
    """
    freeze_reason = _parse_reason(reason)
    _lock_organization_and_wallet(session, organization_id)
    is_decided_here = freeze_reason is not FreezeReason.SUBSCRIPTION_INACTIVE
    if is_decided_here and _active_since(session, organization_id, freeze_reason, cause) is None:
        why = f"{freeze_reason} {cause} is settled"
        wallet_freezes.unfreeze(
            session,
            organization_id,
            freeze_reason,
            operator=Operator(SYSTEM, why),
            now=now,
            cause=cause,
        )
    return enforce_entitlement(session, organization_id, now)


def _parse_reason(reason: str) -> FreezeReason:
    try:
        freeze_reason = FreezeReason(reason)
    except ValueError:
        raise Refused(UNKNOWN_REASON, reason) from None
    if freeze_reason is FreezeReason.MANUAL:
        raise Refused(FREEZE_IS_MANUAL, "only an operator places or lifts a manual freeze")
    return freeze_reason


def _lock_organization_and_wallet(session: Session, organization_id: str) -> None:
    """Lock the organization and the wallet, as every change of a cause does.

    The causes that the caller then reads cannot change until the commit.
    """
    lock_entitlement(session, organization_id)
    if lock_wallet(session, organization_id) is None:
        raise WalletNotFound(organization_id)


def _active_since(
    session: Session, organization_id: str, reason: FreezeReason, cause: str
) -> datetime | None:
    """Return since when the cause exists; None if it does not exist.

    The function also returns None for a reason that `enforce_entitlement` itself decides.
    """
    if reason is FreezeReason.DISPUTE:
        dispute = known_dispute(session, *_dispute_key_of(cause))
        if dispute is None:
            return None
        organization_ids = {dispute.organization_id}
        if dispute.state == DisputeState.REPORTED:
            organization_ids |= {*dispute.named}
        if organization_id not in organization_ids:
            return None
        return dispute.changed_at if dispute.state in _UNDECIDED_STATES else None
    if reason in _SHORTFALL_REASONS:
        wallet = session.get_one(Wallet, organization_id, populate_existing=True)
        return wallet.updated_at if wallet.owed_micros > 0 else None
    return None


def _dispute_key_of(cause: str) -> tuple[str, str]:
    provider, _, external_id = cause.partition(":")
    return provider, external_id


def _lifted_manually(
    session: Session, organization_id: str, reason: FreezeReason, cause: str, since: datetime
) -> bool:
    return (
        session.scalar(
            select(WalletFreeze.id)
            .where(
                WalletFreeze.organization_id == organization_id,
                WalletFreeze.reason == reason,
                WalletFreeze.cause == cause,
                WalletFreeze.lifted_at >= since,
                WalletFreeze.lifted_by != SYSTEM,
            )
            .limit(1)
        )
        is not None
    )
