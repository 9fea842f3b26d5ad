"""Low-balance thresholds: levels below which somebody wants to know.

The ledger itself notices a crossing (0001_thresholds.sql): it disarms the threshold and raises its
alert in the transaction that crossed it, and arms it again when a top-up brings available back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.money import AMOUNT_MICROS_MAX, InvalidAmount
from base.outcomes import Refused
from db.locks import lock_organization, lock_wallet
from db.models import Wallet, WalletThreshold
from domain.alerts.alerts import AlertKind, clear_alerts
from domain.wallet.ledger import WalletNotFound

#: Thresholds of one wallet at most: one crossing may write as many rows.
THRESHOLDS_MAX = 10


class TooManyThresholds(Refused):
    """More thresholds were given than a wallet may have."""

    def __init__(self, count: int) -> None:
        super().__init__("TOO_MANY_THRESHOLDS", f"at most {THRESHOLDS_MAX}, not {count}")


def thresholds_of(session: Session, organization_id: str) -> list[WalletThreshold]:
    """This function will give a wallet's thresholds as they stand, the highest first."""
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
    by: str,
    why: str,
    now: datetime,
) -> list[WalletThreshold]:
    """This function will make these, and no others, the wallet's thresholds, and give them.

    One that was set before is left as it stands, crossed or armed; one that goes takes its alert
    with it; one that is set above what is available counts as crossed there and then, since nobody
    would be told otherwise. Units: 1 to 10^15 micros. Raises: InvalidAmount, TooManyThresholds,
    OrganizationNotFound, WalletNotFound.
    """
    wanted = set(micros)
    if len(wanted) > THRESHOLDS_MAX:
        raise TooManyThresholds(len(wanted))
    for one in wanted:
        if not 1 <= one <= AMOUNT_MICROS_MAX:
            raise InvalidAmount(f"a threshold is 1 to {AMOUNT_MICROS_MAX} micros, not {one}")
    _lock(session, organization_id)
    standing = {row.threshold_micros: row for row in thresholds_of(session, organization_id)}
    gone = standing.keys() - wanted
    for one in gone:
        session.delete(standing[one])
    for one in sorted(wanted - standing.keys()):
        session.add(
            WalletThreshold(
                organization_id=organization_id,
                threshold_micros=one,
                set_by=by,
                set_why=why,
                set_at=now,
            )
        )
    if gone:
        clear_alerts(session, AlertKind.LOW_BALANCE, organization_id, *map(str, gone), now=now)
    return _written(session, organization_id)


def rearm_thresholds(
    session: Session, organization_id: str, *, by: str, why: str, now: datetime
) -> list[WalletThreshold]:
    """This function will arm again, without a top-up, what is not above what is available now.

    Gives all thresholds. Replay: armed ones are left as they are. Raises: OrganizationNotFound,
    WalletNotFound.
    """
    wallet = _lock(session, organization_id)
    available = wallet.balance_micros - wallet.held_micros
    rearmed = [
        row
        for row in thresholds_of(session, organization_id)
        if not row.armed and row.threshold_micros <= available
    ]
    for row in rearmed:
        row.armed, row.crossed_at = True, None
        row.set_by, row.set_why, row.set_at = by, why, now
    if rearmed:
        subjects = [str(row.threshold_micros) for row in rearmed]
        clear_alerts(session, AlertKind.LOW_BALANCE, organization_id, *subjects, now=now)
    return _written(session, organization_id)


def _lock(session: Session, organization_id: str) -> Wallet:
    """The wallet under its lock, which every change of its levels holds."""
    lock_organization(session, organization_id)
    wallet = lock_wallet(session, organization_id)
    if wallet is None:
        raise WalletNotFound(organization_id)
    return wallet


def _written(session: Session, organization_id: str) -> list[WalletThreshold]:
    """The rows as the database's triggers left them; the wallet read before is old now."""
    session.flush()
    session.expire(session.get_one(Wallet, organization_id))
    return thresholds_of(session, organization_id)
