"""What a dispute in PayPal's answers means: whether it is open, won or lost, and over how much.

It decides nothing about money here, guesses no outcome, and asks nobody anything.
"""

from __future__ import annotations

from typing import Any

from base.enums import DisputeState, Provider
from base.facts import DisputeFacts
from base.outcomes import Refused
from providers.instants import instant_of
from providers.paypal.fields import is_resource_id
from providers.paypal.readings import amount_of

#: Source: PayPal's customer_disputes_v1 OpenAPI file, schema status; OTHER is its default.
_OPEN = frozenset(
    {
        "OPEN",
        "WAITING_FOR_BUYER_RESPONSE",
        "WAITING_FOR_SELLER_RESPONSE",
        "UNDER_REVIEW",
        "OTHER",
    }
)
#: Who bears the loss. Source: the same file, schema dispute_outcome. With a payout PayPal pays the
#: buyer itself; NONE is a case closed without a decision because another one took its place.
_OUTCOMES = {
    "RESOLVED_BUYER_FAVOUR": DisputeState.LOST,
    "ACCEPTED": DisputeState.LOST,
    "RESOLVED_SELLER_FAVOUR": DisputeState.WON,
    "RESOLVED_WITH_PAYOUT": DisputeState.WON,
    "CANCELED_BY_BUYER": DisputeState.WON,
    "DENIED": DisputeState.WON,
    "NONE": DisputeState.WON,
}


def dispute_facts(found: dict[str, Any]) -> DisputeFacts:
    """This function will read a dispute's state, its payment, and what is disputed or lost.

    Of a lost one it is what was refunded to the buyer, where PayPal says so. Raises: Refused
    (UNKNOWN_STATUS, UNKNOWN_OUTCOME, SEVERAL_PAYMENTS, NO_CAPTURE, CURRENCY_MISMATCH),
    InvalidAmount.
    """
    external_id = str(found["dispute_id"])
    outcome = found.get("dispute_outcome")
    outcome = outcome if isinstance(outcome, dict) else {}
    state = _state_of(found, outcome, external_id)
    disputed_micros, currency = amount_of(found.get("dispute_amount"))
    if state is DisputeState.LOST and outcome.get("amount_refunded") is not None:
        disputed_micros, lost_currency = amount_of(outcome["amount_refunded"])
        if lost_currency != currency:
            raise Refused("CURRENCY_MISMATCH", "disputed and lost", external_id=external_id)
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


def _state_of(found: dict[str, Any], outcome: dict[str, Any], external_id: str) -> DisputeState:
    status = str(found.get("status"))
    if status in _OPEN:
        return DisputeState.OPEN
    if status != "RESOLVED":
        raise Refused("UNKNOWN_STATUS", "dispute", external_id=external_id)
    state = _OUTCOMES.get(str(outcome.get("outcome_code")))
    if state is None:
        raise Refused("UNKNOWN_OUTCOME", "dispute", external_id=external_id)
    return state


def _payment_of(found: dict[str, Any], external_id: str) -> str:
    listed = found.get("disputed_transactions")
    transactions = listed if isinstance(listed, list) else []
    if len(transactions) > 1:
        # Which part of the amount belongs to which payment is a person's to say.
        raise Refused("SEVERAL_PAYMENTS", "dispute", external_id=external_id)
    for one in transactions:
        payment_id = one.get("seller_transaction_id") if isinstance(one, dict) else None
        if is_resource_id(payment_id):
            return str(payment_id)
    raise Refused("NO_CAPTURE", "the dispute does not name its payment", external_id=external_id)
