"""Opens, resolves and reopens PayPal's disputes of captures.

Source: PayPal's customer_disputes_v1 specification, for states and outcomes.
"""

from __future__ import annotations

from decimal import Decimal

from sandbox.exchange import Json, iso_ms, random_id
from sandbox.paypal.state import LINKS_URL, PayPalState


def open_dispute(
    state: PayPalState, capture_ids: list[str], amount: Json, asset: Json | None = None
) -> Json:
    """Open a dispute of the captures, as a buyer would.

    If an asset is given, it is disputed instead of the amount.
    """
    now = iso_ms()
    dispute_id = f"PP-D-{random_id(6)}"
    dispute: Json = {
        "dispute_id": dispute_id,
        "create_time": now,
        "update_time": now,
        "disputed_transactions": [
            {
                "buyer_transaction_id": random_id(17),
                "seller_transaction_id": capture_id,
                "seller_protection_eligible": True,
            }
            for capture_id in capture_ids
        ],
        "reason": "UNAUTHORISED",
        "status": "OPEN",
        **({"dispute_amount": amount} if asset is None else {"dispute_asset": asset}),
        "dispute_life_cycle_stage": "CHARGEBACK",
        "dispute_channel": "INTERNAL",
        "links": [
            {
                "href": f"{LINKS_URL}/v1/customer/disputes/{dispute_id}",
                "rel": "self",
                "method": "GET",
            }
        ],
    }
    state.disputes[dispute_id] = dispute
    return dispute


def resolve_dispute(
    dispute: Json, outcome_code: str, refunded: Json | None, seller_share: Json | None = None
) -> None:
    """Resolve a dispute.

    `refunded` is the amount that the buyer received, and `seller_share` is the part of it that the
    seller paid. PayPal paid the rest. The dispute does not show an amount that is None.
    """
    now = iso_ms()
    dispute["status"] = "RESOLVED"
    dispute["update_time"] = now
    dispute["dispute_outcome"] = {"outcome_code": outcome_code}
    if refunded is not None:
        dispute["dispute_outcome"]["amount_refunded"] = refunded
    if seller_share is None:
        return
    total = refunded or dispute["dispute_amount"]
    rest = Decimal(total["value"]) - Decimal(seller_share["value"])
    paid_by_paypal = {**total, "value": f"{rest:f}"}
    dispute["money_movements"] = [
        {
            "affected_party": party,
            "amount": amount,
            "initiated_time": now,
            "type": kind,
            "reason": "DISPUTE_SETTLEMENT",
        }
        for party, kind, amount in (
            ("SELLER", "DEBIT", seller_share),
            ("PAYMENT_PROCESSOR", "DEBIT", paid_by_paypal),
            ("BUYER", "CREDIT", total),
        )
        if Decimal(amount["value"])
    ]


def reopen_dispute(dispute: Json) -> None:
    """Reopen a dispute, as an appeal does."""
    dispute["status"] = "UNDER_REVIEW"
    dispute["update_time"] = iso_ms()
    dispute.pop("dispute_outcome", None)
    dispute.pop("money_movements", None)


def newest_dispute_of(state: PayPalState, capture_id: str) -> Json | None:
    """Return the newest dispute of a capture, if there is one."""
    return state.disputes.newest(lambda dispute: disputed_capture(dispute) == capture_id)


def newest_open(state: PayPalState, organization_id: str) -> Json | None:
    """Return the newest unresolved dispute of an organization's captures, if any."""

    def is_of_organization(dispute: Json) -> bool:
        capture = state.captures.get(disputed_capture(dispute), {})
        return bool(organization_id) and capture.get("custom_id") == organization_id

    return state.disputes.newest(
        lambda dispute: dispute["status"] != "RESOLVED" and is_of_organization(dispute)
    )


def disputed_capture(dispute: Json) -> str:
    """Return the ID of the disputed capture, the first one if there are several."""
    return str(dispute["disputed_transactions"][0]["seller_transaction_id"])
