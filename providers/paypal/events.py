"""Reads what a verified PayPal event reports.

A report decides only what is refreshed from PayPal. No amount, and no state that opens an account
or credits money, is taken from an event. Its signature covers only a CRC32 of the body, and a body
with the same CRC32 can be forged.
"""

from __future__ import annotations

from base.enums import Provider, Queue
from base.facts import (
    DisputeReport,
    OtherReport,
    PaymentReport,
    Report,
    SubscriptionReport,
)
from providers.errors import MalformedWebhook
from providers.paypal.envelope import Envelope, read_envelope
from providers.paypal.fields import is_resource_id

#: Source: developer.paypal.com/docs/subscriptions/reference/webhooks.
_CLOSING = frozenset(
    {
        "BILLING.SUBSCRIPTION.SUSPENDED",
        "BILLING.SUBSCRIPTION.CANCELLED",
        "BILLING.SUBSCRIPTION.EXPIRED",
    }
)
#: RE-ACTIVATED is from the older API.
_OPENING = frozenset({"BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.RE-ACTIVATED"})
#: These events claim neither. A failed payment may be tried again, so it closes nothing.
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
#: RISK.DISPUTE.CREATED is not listed: it is an older event that PayPal sends with the first one.
_DISPUTES = frozenset(
    {"CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"}
)
#: The fee of a subscription. The sale itself is never a top-up of the wallet.
_SALE = "PAYMENT.SALE.COMPLETED"


def queue_of(event_type: str) -> Queue | None:
    """Return the queue for events of a type; None if they concern nothing here.

    An event that may stop an organization's spending goes to the safety queue.
    """
    if event_type in _CLOSING | _OPENING | _NEITHER | _DISPUTES:
        return Queue.SAFETY
    if event_type in _CAPTURES | _GIVEN_BACK or event_type == _SALE:
        return Queue.BILLING
    return None


def parse(body: bytes) -> Report:
    """Read what a verified event is about.

    Raises: MalformedWebhook if the ID of the resource to refresh is missing or invalid.
    """
    event = read_envelope(body)
    kind = event.event_type
    if kind in _CLOSING | _OPENING | _NEITHER:
        return _subscription(event, _id_from(event, "id"))
    # It shows that the subscription pays.
    if kind == _SALE and event.resource.get("billing_agreement_id") is not None:
        return _subscription(event, _id_from(event, "billing_agreement_id"))
    if kind in _CAPTURES:
        return PaymentReport(Provider.PAYPAL, "capture", _id_from(event, "id"))
    if kind in _GIVEN_BACK:
        # Both kinds of event carry the refund's own ID. Only the refund has the refunded amount.
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
        # Only a hint for the freeze. The amount and the payment are read from PayPal.
        tuple(dict.fromkeys(str(one) for one in ids if is_resource_id(one))),
        opening=event.event_type == "CUSTOMER.DISPUTE.CREATED",
    )


def _id_from(event: Envelope, name: str) -> str:
    value = event.resource.get(name)
    if not is_resource_id(value):
        raise MalformedWebhook(f"{event.event_type} has no plain resource.{name}")
    return str(value)
