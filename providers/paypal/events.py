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
_CLOSING_TYPES = frozenset(
    {
        "BILLING.SUBSCRIPTION.SUSPENDED",
        "BILLING.SUBSCRIPTION.CANCELLED",
        "BILLING.SUBSCRIPTION.EXPIRED",
    }
)
#: RE-ACTIVATED is from the older API.
_OPENING_TYPES = frozenset({"BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.RE-ACTIVATED"})
#: These events neither close nor open a subscription. PayPal may retry a failed payment, so its
#: event closes nothing.
_NEUTRAL_TYPES = frozenset(
    {
        "BILLING.SUBSCRIPTION.CREATED",
        "BILLING.SUBSCRIPTION.UPDATED",
        "BILLING.SUBSCRIPTION.PAYMENT.FAILED",
    }
)
_CAPTURE_TYPES = frozenset(
    {
        "PAYMENT.CAPTURE.COMPLETED",
        "PAYMENT.CAPTURE.DENIED",
        "PAYMENT.CAPTURE.DECLINED",
        "PAYMENT.CAPTURE.PENDING",
    }
)
_REFUND_TYPES = frozenset(
    {
        "PAYMENT.CAPTURE.REFUNDED",
        "PAYMENT.CAPTURE.REVERSED",
        "PAYMENT.REFUND.PENDING",
        "PAYMENT.REFUND.COMPLETED",
        "PAYMENT.REFUND.FAILED",
        "PAYMENT.REFUND.CANCELLED",
    }
)
#: RISK.DISPUTE.CREATED is not listed: PayPal sends that older event together with
#: CUSTOMER.DISPUTE.CREATED.
_DISPUTE_TYPES = frozenset(
    {"CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"}
)
#: The fee of a subscription. The sale itself is never a top-up of the wallet.
_SALE_TYPE = "PAYMENT.SALE.COMPLETED"


def queue_of(event_type: str) -> Queue | None:
    """Return the queue for events of a type; None if Holdfast does not use it.

    An event that may stop an organization's spending goes to the safety queue.
    """
    if event_type in _CLOSING_TYPES | _OPENING_TYPES | _NEUTRAL_TYPES | _DISPUTE_TYPES:
        return Queue.SAFETY
    if event_type in _CAPTURE_TYPES | _REFUND_TYPES or event_type == _SALE_TYPE:
        return Queue.BILLING
    return None


def parse(body: bytes) -> Report:
    """Read which object a verified event reports about.

    Raises: MalformedWebhook if the ID of the resource to refresh is missing or invalid.
    """
    event = read_envelope(body)
    kind = event.event_type
    if kind in _CLOSING_TYPES | _OPENING_TYPES | _NEUTRAL_TYPES:
        return _subscription_report(event, _resource_id(event, "id"))
    # A subscription's sale shows that the subscription has been paid.
    if kind == _SALE_TYPE and event.resource.get("billing_agreement_id") is not None:
        return _subscription_report(event, _resource_id(event, "billing_agreement_id"))
    if kind in _CAPTURE_TYPES:
        return PaymentReport(Provider.PAYPAL, "capture", _resource_id(event, "id"))
    if kind in _REFUND_TYPES:
        # The events of the capture and of the refund both carry the refund's ID. Only the refund
        # has the refunded amount.
        return PaymentReport(Provider.PAYPAL, "refund", _resource_id(event, "id"))
    if kind in _DISPUTE_TYPES:
        return _dispute_report(event)
    return OtherReport(kind)


def _subscription_report(event: Envelope, external_id: str) -> SubscriptionReport:
    return SubscriptionReport(
        Provider.PAYPAL,
        external_id,
        closing=event.event_type in _CLOSING_TYPES,
        opening=event.event_type in _OPENING_TYPES,
        occurred_at=event.occurred_at,
    )


def _dispute_report(event: Envelope) -> DisputeReport:
    transactions = event.resource.get("disputed_transactions")
    payment_ids = [
        transaction.get("seller_transaction_id")
        for transaction in (transactions if isinstance(transactions, list) else [])
        if isinstance(transaction, dict)
    ]
    return DisputeReport(
        Provider.PAYPAL,
        _resource_id(event, "dispute_id"),
        # These IDs only indicate which wallet to freeze. The payment and the amount are
        # read from PayPal's API.
        tuple(dict.fromkeys(str(each) for each in payment_ids if is_resource_id(each))),
        opening=event.event_type == "CUSTOMER.DISPUTE.CREATED",
    )


def _resource_id(event: Envelope, name: str) -> str:
    value = event.resource.get(name)
    if not is_resource_id(value):
        raise MalformedWebhook(f"{event.event_type} has no plain resource.{name}")
    return str(value)
