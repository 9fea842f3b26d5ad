"""Assets, such as phone numbers, which are paid in full before they are bought.

An asset is never paid from the debt limit.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from domain.wallet.ledger import WalletOutcome, call_ledger, clamp_amount, follow_up


def deduct_asset_cost(
    session: Session,
    organization_id: str,
    *,
    key: str,
    amount_micros: int,
    currency: str,
    asset: str,
    now: datetime,
) -> WalletOutcome:
    """Check the balance and deduct an asset's price in one step.

    `asset` names the asset in the entry's note. Replay: as operations.debit. The same key with
    another asset is still the same request. Refuses: FROZEN_WALLET, INSUFFICIENT_FUNDS, and what
    operations.credit refuses.
    """
    outcome = call_ledger(
        session,
        "check_balance_and_deduct_asset_cost(:org, :key, :amount, :currency, :asset, :now)",
        org=organization_id,
        key=key,
        amount=clamp_amount(amount_micros),
        currency=currency,
        asset=asset,
        now=now,
    )
    return follow_up(session, organization_id, outcome)
