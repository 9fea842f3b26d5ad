"""Maps PayPal's subscriptions, captures and refunds to `base.facts`.

It decides which money is ours and which was refunded. It sends no request.
"""

from __future__ import annotations

import re
from typing import Any

from base.enums import Provider, RefundState, SubscriptionStatus
from base.facts import PaymentFacts, RefundFacts, SubscriptionFacts
from base.money import InvalidAmount
from base.outcomes import Refused
from base.problems.payments import NO_CAPTURE, UNKNOWN_STATUS
from base.problems.wallet import CURRENCY_MISMATCH
from providers.instants import instant_of
from providers.paypal.amounts import micros_from_paypal
from providers.paypal.fields import is_resource_id

#: Source: PayPal's billing_subscriptions_v1 OpenAPI file, schema subscription_status.
_STATUSES = {
    "APPROVAL_PENDING": SubscriptionStatus.PENDING,
    "APPROVED": SubscriptionStatus.PENDING,
    "ACTIVE": SubscriptionStatus.ACTIVE,
    "SUSPENDED": SubscriptionStatus.SUSPENDED,
    "CANCELLED": SubscriptionStatus.CANCELLED,
    "EXPIRED": SubscriptionStatus.EXPIRED,
}
#: Source: PayPal's payments_payment_v2 OpenAPI file, schemas capture_status and refund_status.
_RECEIVED_STATUSES = frozenset({"COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED"})
_NOT_RECEIVED_STATUSES = frozenset({"PENDING", "DECLINED", "FAILED"})
_REFUND_STATES = {
    "PENDING": RefundState.PENDING,
    "COMPLETED": RefundState.COMPLETED,
    "FAILED": RefundState.FAILED,
    "CANCELLED": RefundState.FAILED,
}
_CAPTURE_HREF = re.compile(r"https?://[^/?#]+/v2/payments/captures/([^/?#]+)")


def subscription_facts(subscription: dict[str, Any]) -> SubscriptionFacts:
    """Read a subscription's status, plan and organization.

    Raises: Refused (UNKNOWN_STATUS).
    """
    external_id = str(subscription["id"])
    status = _STATUSES.get(str(subscription.get("status")))
    if status is None:
        raise Refused(UNKNOWN_STATUS, "subscription", external_id=external_id)
    if status is SubscriptionStatus.ACTIVE and _failed_payments(subscription) > 0:
        status = SubscriptionStatus.PAST_DUE
    return SubscriptionFacts(
        provider=Provider.PAYPAL,
        external_id=external_id,
        status=status,
        organization_id=_text_or_none(subscription.get("custom_id")),
        plan_external_id=_text_or_none(subscription.get("plan_id")),
        status_changed_at=instant_of(subscription.get("status_update_time")),
    )


def _failed_payments(subscription: dict[str, Any]) -> int:
    billing = subscription.get("billing_info")
    count = billing.get("failed_payments_count") if isinstance(billing, dict) else None
    text = str(count)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _text_or_none(value: object) -> str | None:
    """Return a short, printable ASCII text that can be an ID; None for anything else."""
    if isinstance(value, str) and 0 < len(value) <= 64 and value.isascii() and value.isprintable():
        return value
    return None


def capture_id_of(refund: dict[str, Any]) -> str:
    """Return the ID of the capture that a refund belongs to.

    Raises: Refused (NO_CAPTURE).
    """
    links = refund.get("links")
    for link in links if isinstance(links, list) else []:
        if not isinstance(link, dict) or link.get("rel") != "up":
            continue
        # Only the ID is used. The link's host may be anyone's, so it gets no request.
        match = _CAPTURE_HREF.fullmatch(str(link.get("href")))
        if match and is_resource_id(match[1]):
            return match[1]
    raise Refused(NO_CAPTURE, "the refund does not name its capture")


def payment_facts(capture: dict[str, Any], *, refund: dict[str, Any] | None) -> PaymentFacts:
    """Read a capture's amounts and, if given, one refund of it.

    Raises: Refused (UNKNOWN_STATUS, CURRENCY_MISMATCH), InvalidAmount.
    """
    external_id, status = str(capture["id"]), str(capture.get("status"))
    if status not in _RECEIVED_STATUSES | _NOT_RECEIVED_STATUSES:
        raise Refused(UNKNOWN_STATUS, "capture", external_id=external_id)
    amount_micros, currency = amount_of(capture.get("amount"))
    captured_micros = amount_micros if status in _RECEIVED_STATUSES else 0
    return PaymentFacts(
        provider=Provider.PAYPAL,
        external_id=external_id,
        organization_id=_text_or_none(capture.get("custom_id")),
        currency=currency,
        captured_micros=captured_micros,
        refunded_micros=captured_micros if status == "REFUNDED" else 0,
        stated_at=instant_of(capture.get("update_time")),
        refund=None if refund is None else _refund_facts(refund, currency),
        ordered=_names_an_order(capture),
    )


def _names_an_order(capture: dict[str, Any]) -> bool:
    value: object = capture
    for name in ("supplementary_data", "related_ids", "order_id"):
        value = value.get(name) if isinstance(value, dict) else None
    return is_resource_id(value)


def _refund_facts(refund: dict[str, Any], currency: str) -> RefundFacts:
    external_id = str(refund["id"])
    state = _REFUND_STATES.get(str(refund.get("status")))
    if state is None:
        raise Refused(UNKNOWN_STATUS, "refund", external_id=external_id)
    amount_micros, amount_currency = amount_of(refund.get("amount"))
    breakdown = refund.get("seller_payable_breakdown")
    total = breakdown.get("total_refunded_amount") if isinstance(breakdown, dict) else None
    total_micros, total_currency = (None, currency) if total is None else amount_of(total)
    if {amount_currency, total_currency} != {currency}:
        raise Refused(CURRENCY_MISMATCH, "refund and capture", external_id=external_id)
    made_at = instant_of(refund.get("create_time"))
    return RefundFacts(
        external_id=external_id,
        amount_micros=amount_micros,
        total_micros=total_micros,
        state=state,
        made_at=made_at,
        stated_at=instant_of(refund.get("update_time")) or made_at,
    )


def amount_of(money: object) -> tuple[int, str]:
    """Read an amount in micros, and its currency.

    Raises: InvalidAmount, also for a negative amount.
    """
    members = money if isinstance(money, dict) else {}
    currency = str(members.get("currency_code"))
    micros = micros_from_paypal(members.get("value", ""), currency)
    if micros < 0:
        raise InvalidAmount("below zero")
    return micros, currency
