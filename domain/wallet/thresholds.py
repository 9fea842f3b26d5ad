"""Set the low-balance thresholds, below which an alert is raised.

The database detects a crossing (0001_thresholds.sql). In the transaction that crosses a threshold,
it disarms the threshold and raises its alert. When a payment brings available money back to the
threshold, it arms the threshold again and clears the alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.money import AMOUNT_MICROS_MAX, InvalidAmount
from base.operators import Operator
from base.outcomes import Refused
from base.problems.wallet import TOO_MANY_THRESHOLDS
from db.locks import lock_organization, lock_wallet
from db.models import Wallet, WalletThreshold
from domain.alerts.alerts import AlertKind, clear_alerts
from domain.wallet.ledger import WalletNotFound

#: Largest number of thresholds of one wallet. One debit may cross all of them.
THRESHOLDS_MAX = 10


class TooManyThresholds(Refused):
    """The request names more thresholds than a wallet may have."""

    def __init__(self, count: int) -> None:
        super().__init__(TOO_MANY_THRESHOLDS, f"at most {THRESHOLDS_MAX}, not {count}")


def thresholds_of(session: Session, organization_id: str) -> list[WalletThreshold]:
    """List a wallet's thresholds, the highest first."""
    return list(
        session.scalars(
            select(WalletThreshold)
            .filter_by(organization_id=organization_id)
            .order_by(WalletThreshold.threshold_micros.desc())
            .execution_options(populate_existing=True)
        )
    )


def set_thresholds(
    session: Session,
    organization_id: str,
    micros: Sequence[int],
    *,
    operator: Operator,
    now: datetime,
) -> list[WalletThreshold]:
    """Replace the wallet's thresholds, and return the new ones.

    A threshold that was set before keeps its state, armed or crossed. The alert of a removed
    threshold is cleared. A new threshold above the available money counts as crossed at once,
    because no later crossing would raise its alert. Units: 1 to 10^15 micros. Raises:
    InvalidAmount, TooManyThresholds, OrganizationNotFound, WalletNotFound.
    """
    requested = set(micros)
    if len(requested) > THRESHOLDS_MAX:
        raise TooManyThresholds(len(requested))
    for threshold in requested:
        if not 1 <= threshold <= AMOUNT_MICROS_MAX:
            raise InvalidAmount(f"a threshold is 1 to {AMOUNT_MICROS_MAX} micros, not {threshold}")
    _lock_wallet(session, organization_id)
    existing = {row.threshold_micros: row for row in thresholds_of(session, organization_id)}
    removed = existing.keys() - requested
    for threshold in removed:
        session.delete(existing[threshold])
    for threshold in sorted(requested - existing.keys()):
        session.add(
            WalletThreshold(
                organization_id=organization_id,
                threshold_micros=threshold,
                set_by=operator.name,
                set_why=operator.reason,
                set_at=now,
            )
        )
    if removed:
        clear_alerts(session, AlertKind.LOW_BALANCE, organization_id, *map(str, removed), now=now)
    return _read_again(session, organization_id)


def rearm_thresholds(
    session: Session, organization_id: str, *, operator: Operator, now: datetime
) -> list[WalletThreshold]:
    """Arm crossed thresholds again, up to the available money, without a top-up.

    Return all thresholds. Replay: armed thresholds are left unchanged. Raises:
    OrganizationNotFound, WalletNotFound.
    """
    wallet = _lock_wallet(session, organization_id)
    available = wallet.balance_micros - wallet.held_micros
    rearmed = [
        row
        for row in thresholds_of(session, organization_id)
        if not row.armed and row.threshold_micros <= available
    ]
    for row in rearmed:
        row.armed, row.crossed_at = True, None
        row.set_by, row.set_why, row.set_at = operator.name, operator.reason, now
    if rearmed:
        subjects = [str(row.threshold_micros) for row in rearmed]
        clear_alerts(session, AlertKind.LOW_BALANCE, organization_id, *subjects, now=now)
    return _read_again(session, organization_id)


def _lock_wallet(session: Session, organization_id: str) -> Wallet:
    """Lock the wallet, as every change of its thresholds must, and return it."""
    lock_organization(session, organization_id)
    wallet = lock_wallet(session, organization_id)
    if wallet is None:
        raise WalletNotFound(organization_id)
    return wallet


def _read_again(session: Session, organization_id: str) -> list[WalletThreshold]:
    """Read the thresholds again, because triggers may have changed their rows."""
    session.flush()
    session.expire(session.get_one(Wallet, organization_id))
    return thresholds_of(session, organization_id)
