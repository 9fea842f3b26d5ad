"""Place, lift and override the freezes of a wallet."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.enums import FreezeReason
from base.operators import Operator
from base.outcomes import Refused
from base.problems.wallet import FREEZE_NOT_FOUND, INVALID_OVERRIDE
from db.models import WalletFreeze
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION
from domain.wallet.ledger import require_wallet

#: The longest override of a freeze, so that an emergency measure cannot become permanent.
OVERRIDE_DAYS_MAX = 30


class ActiveFreezes(NamedTuple):
    """A wallet's active freezes: those that stop spending, and those overridden now."""

    stopping: list[WalletFreeze]
    overridden: list[WalletFreeze]


class UnknownFreeze(Refused):
    """The wallet has no active freeze with this reason."""

    def __init__(self, organization_id: str, reason: str) -> None:
        super().__init__(FREEZE_NOT_FOUND, reason, organization=organization_id)


def freeze(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    operator: Operator,
    now: datetime,
    cause: str = "",
) -> bool:
    """Place a freeze; return False if it is already active, which changes nothing.

    Raises: WalletNotFound.
    """
    require_wallet(session, organization_id)
    placed = session.execute(
        text("SELECT wallet_freeze(:org, :reason, :cause, :by, :why, :now)"),
        {
            "org": organization_id,
            "reason": str(reason),
            "cause": cause,
            "by": operator.name,
            "why": operator.reason,
            "now": now,
        },
    ).scalar_one()
    return bool(placed)


def unfreeze(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    operator: Operator,
    now: datetime,
    cause: str | None = None,
) -> int:
    """Lift a reason's freezes, of one cause or of all, and return how many.

    The wallet stays frozen while a freeze with another reason is active. Raises: WalletNotFound.
    """
    require_wallet(session, organization_id)
    lifted: int = session.execute(
        text("SELECT wallet_unfreeze(:org, :reason, :cause, :by, :why, :now)"),
        {
            "org": organization_id,
            "reason": str(reason),
            "cause": cause,
            "by": operator.name,
            "why": operator.reason,
            "now": now,
        },
    ).scalar_one()
    return lifted


def override(
    session: Session,
    organization_id: str,
    reason: FreezeReason,
    *,
    until: datetime,
    operator: Operator,
    now: datetime,
) -> None:
    """Let the wallet spend until a given time although this reason's freeze is active.

    A job staged here enforces the entitlement again when the override ends. The debit itself
    compares the end with `now` and does not depend on the job. Raises: WalletNotFound,
    UnknownFreeze; Refused INVALID_OVERRIDE if `until` is past or more than 30 days away.
    """
    seconds = (until - now).total_seconds()
    if not 0 < seconds <= OVERRIDE_DAYS_MAX * 86_400:
        raise Refused(INVALID_OVERRIDE, f"the end must lie within {OVERRIDE_DAYS_MAX} days")
    require_wallet(session, organization_id)
    count: int = session.execute(
        text("SELECT wallet_override(:org, :reason, :until, :by, :why, :now)"),
        {
            "org": organization_id,
            "reason": str(reason),
            "until": until,
            "by": operator.name,
            "why": operator.reason,
            "now": now,
        },
    ).scalar_one()
    if not count:
        raise UnknownFreeze(organization_id, reason)
    stage(
        session,
        ENFORCE_ORGANIZATION,
        organization_id,
        delay_seconds=seconds + 1,
        organization_id=organization_id,
    )


def active_freezes(session: Session, organization_id: str, now: datetime) -> ActiveFreezes:
    """Return the active freezes that stop spending, and those overridden at `now`."""
    return active_freezes_of(session, (organization_id,), now)[organization_id]


def active_freezes_of(
    session: Session, organization_ids: Collection[str], now: datetime
) -> dict[str, ActiveFreezes]:
    """Return each organization's active freezes, read in one statement."""
    found: dict[str, ActiveFreezes] = {key: ActiveFreezes([], []) for key in organization_ids}
    for row in session.scalars(
        select(WalletFreeze)
        .where(WalletFreeze.organization_id.in_(organization_ids), WalletFreeze.lifted_at.is_(None))
        .order_by(WalletFreeze.id)
        .execution_options(populate_existing=True)
    ):
        is_overridden = row.override_until is not None and row.override_until > now
        active = found[row.organization_id]
        (active.overridden if is_overridden else active.stopping).append(row)
    return found
