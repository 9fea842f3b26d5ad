"""Reads PayPal's disputes: open, won or lost, and the disputed amount.

It decides nothing about money, guesses no outcome, and sends no request.
"""

from __future__ import annotations

from typing import Any

from base.enums import DisputeState, Provider
from base.facts import DisputeFacts
from base.outcomes import Refused
from base.problems.payments import (
    NO_AMOUNT,
    NO_CAPTURE,
    SEVERAL_PAYMENTS,
    UNKNOWN_MOVEMENT,
    UNKNOWN_OUTCOME,
    UNKNOWN_STATUS,
)
from base.problems.wallet import CURRENCY_MISMATCH
from providers.instants import instant_of
from providers.paypal.fields import is_resource_id
from providers.paypal.mapping import amount_of

#: Source: PayPal's customer_disputes_v1 OpenAPI file, schema status. OTHER is the schema's default.
_OPEN = frozenset(
    {
        "OPEN",
        "WAITING_FOR_BUYER_RESPONSE",
        "WAITING_FOR_SELLER_RESPONSE",
        "UNDER_REVIEW",
        "OTHER",
    }
)
#: Whether the seller bears the loss. With a payout, PayPal itself pays the buyer. NONE is a case
#: that was closed without a decision, because another case replaced it.
#: Source: the same file, schema dispute_outcome.
_OUTCOMES = {
    "RESOLVED_BUYER_FAVOUR": DisputeState.LOST,
    "ACCEPTED": DisputeState.LOST,
    "RESOLVED_SELLER_FAVOUR": DisputeState.WON,
    "RESOLVED_WITH_PAYOUT": DisputeState.WON,
    "CANCELED_BY_BUYER": DisputeState.WON,
    "DENIED": DisputeState.WON,
    "NONE": DisputeState.WON,
}

#: The parties that may pay the buyer's money. Source: the same file, schema money_movement.
_PAYERS = frozenset({"SELLER", "PAYMENT_PROCESSOR"})
#: Movements that are not part of the disputed money.
#: Source: the same file, schema money_movement_reason. REVERSED_TRANSACTION_FEE is in the schema
#: that succeeds it (fund_movement_reason).
_FEES = frozenset(
    {"DISPUTE_SETTLEMENT_FEE", "DISPUTE_FEE", "CHARGEBACK_FEE", "REVERSED_TRANSACTION_FEE"}
)


def dispute_facts(found: dict[str, Any]) -> DisputeFacts:
    """Read a dispute's state, its payment, and the amount that is disputed or lost.

    For a lost dispute, the amount is the seller's part of `money_movements`. If PayPal lists no
    movements, it is the amount refunded to the buyer. If PayPal has neither, it is the disputed
    amount. Raises: Refused (UNKNOWN_STATUS, UNKNOWN_OUTCOME, UNKNOWN_MOVEMENT, SEVERAL_PAYMENTS,
    NO_CAPTURE, NO_AMOUNT, CURRENCY_MISMATCH), InvalidAmount.
    """
    external_id = str(found["dispute_id"])
    outcome = found.get("dispute_outcome")
    outcome = outcome if isinstance(outcome, dict) else {}
    state = _state_of(found, outcome, external_id)
    disputed_micros, currency = _amount_in(found, "dispute_amount", "dispute_asset", external_id)
    if state is DisputeState.LOST:
        lost = _lost(found, outcome, external_id)
        if lost is not None:
            disputed_micros, lost_currency = lost
            if lost_currency != currency:
                raise Refused(CURRENCY_MISMATCH, "disputed and lost", external_id=external_id)
    opened_at = instant_of(found.get("create_time"))
    return DisputeFacts(
        provider=Provider.PAYPAL,
        external_id=external_id,
        payment_external_id=_payment_of(found, external_id),
        currency=currency,
        disputed_micros=disputed_micros,
        state=state,
        opened_at=opened_at,
        stated_at=instant_of(found.get("update_time")) or opened_at,
    )


def _lost(
    found: dict[str, Any], outcome: dict[str, Any], external_id: str
) -> tuple[int, str] | None:
    """Return the seller's loss in micros and its currency; None if not stated."""
    borne = _borne_by_seller(found, external_id)
    if borne is not None:
        return borne
    if outcome.get("amount_refunded") is None and outcome.get("asset_refunded") is None:
        return None
    return _amount_in(outcome, "amount_refunded", "asset_refunded", external_id)


def _borne_by_seller(found: dict[str, Any], external_id: str) -> tuple[int, str] | None:
    """Sum the settlement that the seller paid: its debits minus its credits.

    Return None if no movement shows whether the seller or PayPal paid the settlement. Fees are not
    part of the payment, so its wallet never pays them.
    """
    listed = found.get("money_movements")
    micros, currencies = 0, set()
    for one in listed if isinstance(listed, list) else []:
        movement = one if isinstance(one, dict) else {}
        party, reason = movement.get("affected_party"), movement.get("reason")
        if party == "BUYER" or reason in _FEES:
            continue
        sign = {"DEBIT": 1, "CREDIT": -1}.get(str(movement.get("type")))
        if sign is None or party not in _PAYERS or reason != "DISPUTE_SETTLEMENT":
            raise Refused(UNKNOWN_MOVEMENT, "dispute", external_id=external_id)
        amount_micros, currency = _amount_in(movement, "amount", "asset", external_id)
        currencies.add(currency)
        if party == "SELLER":
            micros += sign * amount_micros
    if len(currencies) > 1:
        raise Refused(CURRENCY_MISMATCH, "the money movements", external_id=external_id)
    if micros < 0:
        raise Refused(UNKNOWN_MOVEMENT, "the seller gained", external_id=external_id)
    return (micros, currencies.pop()) if currencies else None


def _amount_in(found: dict[str, Any], amount: str, asset: str, external_id: str) -> tuple[int, str]:
    if found.get(amount) is None and found.get(asset) is not None:
        # A cryptocurrency. Only a person can decide its value in the wallet's currency.
        raise Refused(NO_AMOUNT, f"{asset} in place of {amount}", external_id=external_id)
    return amount_of(found.get(amount))


def _state_of(found: dict[str, Any], outcome: dict[str, Any], external_id: str) -> DisputeState:
    status = str(found.get("status"))
    if status in _OPEN:
        return DisputeState.OPEN
    if status != "RESOLVED":
        raise Refused(UNKNOWN_STATUS, "dispute", external_id=external_id)
    state = _OUTCOMES.get(str(outcome.get("outcome_code")))
    if state is None:
        raise Refused(UNKNOWN_OUTCOME, "dispute", external_id=external_id)
    return state


def _payment_of(found: dict[str, Any], external_id: str) -> str:
    listed = found.get("disputed_transactions")
    transactions = listed if isinstance(listed, list) else []
    named = [
        one.get("seller_transaction_id") if isinstance(one, dict) else None for one in transactions
    ]
    # PayPal may list one transaction several times, once for each of its items.
    ids = {str(one) if is_resource_id(one) else None for one in named}
    if len(ids) > 1:
        # Only a person can decide which part of the amount belongs to which payment.
        raise Refused(SEVERAL_PAYMENTS, "dispute", external_id=external_id)
    payment_id = ids.pop() if ids else None
    if payment_id is None:
        raise Refused(NO_CAPTURE, "the dispute does not name its payment", external_id=external_id)
    return payment_id
