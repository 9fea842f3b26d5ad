"""Assets, such as phone numbers: paid whole and at once, before they are bought.

Never out of the debt limit: who cannot pay for a number does not get one.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from domain.wallet.ledger import WalletOutcome, call_ledger, follow_up, refusable


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
    """This function will check the balance and take an asset's price, in one step.

    `asset` says which, in the entry's note. Replay: as wallet.debit; another name for the asset
    makes no other request. Refuses: FROZEN_WALLET, INSUFFICIENT_FUNDS, and what credit refuses.
    """
    outcome = call_ledger(
        session,
        "check_balance_and_deduct_asset_cost(:org, :key, :amount, :currency, :asset, :now)",
        org=organization_id,
        key=key,
        amount=refusable(amount_micros),
        currency=currency,
        asset=asset,
        now=now,
    )
    return follow_up(session, organization_id, outcome)
