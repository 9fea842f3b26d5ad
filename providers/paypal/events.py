"""What a verified PayPal event reports, in our words.

It decides only what has to be looked at. No amount, and no state that opens or pays, is taken from
an event: its signature covers a CRC32 of the body, which can be forged.
"""

from __future__ import annotations

from base.enums import Provider
from base.facts import (
    DisputeReport,
    OtherReport,
    PaymentReport,
    Report,
    SubscriptionReport,
)
from providers.errors import MalformedWebhook
from providers.paypal.envelope import Envelope, read
from providers.paypal.fields import is_resource_id

#: Source: developer.paypal.com/docs/subscriptions/reference/webhooks.
_CLOSING = frozenset(
    {
        "BILLING.SUBSCRIPTION.SUSPENDED",
        "BILLING.SUBSCRIPTION.CANCELLED",
        "BILLING.SUBSCRIPTION.EXPIRED",
    }
)
#: RE-ACTIVATED is the older API's.
_OPENING = frozenset({"BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.RE-ACTIVATED"})
#: They claim neither. A failed payment may be tried again, so it closes nothing.
_NEITHER = frozenset(
    {
        "BILLING.SUBSCRIPTION.CREATED",
        "BILLING.SUBSCRIPTION.UPDATED",
        "BILLING.SUBSCRIPTION.PAYMENT.FAILED",
    }
)
_CAPTURES = frozenset(
    {
        "PAYMENT.CAPTURE.COMPLETED",
        "PAYMENT.CAPTURE.DENIED",
        "PAYMENT.CAPTURE.DECLINED",
        "PAYMENT.CAPTURE.PENDING",
    }
)
_GIVEN_BACK = frozenset(
    {
        "PAYMENT.CAPTURE.REFUNDED",
        "PAYMENT.CAPTURE.REVERSED",
        "PAYMENT.REFUND.PENDING",
        "PAYMENT.REFUND.COMPLETED",
        "PAYMENT.REFUND.FAILED",
        "PAYMENT.REFUND.CANCELLED",
    }
)
#: RISK.DISPUTE.CREATED, the older name, is sent beside the first of them and says nothing more.
_DISPUTES = frozenset(
    {"CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"}
)


def parse(body: bytes) -> Report:
    """This function will say what a verified event is about.

    Raises: MalformedWebhook when the id that has to be looked at is missing or odd.
    """
    event = read(body)
    kind = event.event_type
    if kind in _CLOSING | _OPENING | _NEITHER:
        return _subscription(event, _id_from(event, "id"))
    # A subscription's fee arrives as a sale; it shows that the subscription pays, and is never
    # a top-up of the wallet.
    if kind == "PAYMENT.SALE.COMPLETED" and event.resource.get("billing_agreement_id") is not None:
        return _subscription(event, _id_from(event, "billing_agreement_id"))
    if kind in _CAPTURES:
        return PaymentReport(Provider.PAYPAL, "capture", _id_from(event, "id"))
    if kind in _GIVEN_BACK:
        # In both shapes it is the refund's own id; only the refund tells how much was given back.
        return PaymentReport(Provider.PAYPAL, "refund", _id_from(event, "id"))
    if kind in _DISPUTES:
        return _dispute(event)
    return OtherReport(kind)


def _subscription(event: Envelope, external_id: str) -> SubscriptionReport:
    return SubscriptionReport(
        Provider.PAYPAL,
        external_id,
        closing=event.event_type in _CLOSING,
        opening=event.event_type in _OPENING,
        occurred_at=event.occurred_at,
    )


def _dispute(event: Envelope) -> DisputeReport:
    listed = event.resource.get("disputed_transactions")
    ids = [
        one.get("seller_transaction_id")
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict)
    ]
    return DisputeReport(
        Provider.PAYPAL,
        _id_from(event, "dispute_id"),
        # A hint for the freeze alone: what is disputed, and of which payment, is asked of PayPal.
        tuple(dict.fromkeys(str(one) for one in ids if is_resource_id(one))),
        opening=event.event_type == "CUSTOMER.DISPUTE.CREATED",
    )


def _id_from(event: Envelope, name: str) -> str:
    value = event.resource.get(name)
    if not is_resource_id(value):
        raise MalformedWebhook(f"{event.event_type} has no plain resource.{name}")
    return str(value)
