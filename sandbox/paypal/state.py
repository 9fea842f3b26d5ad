"""PayPal's state: subscriptions, captures, refunds, disputes and sent events.

Amounts are decimal strings. They are added as decimals, never as floats.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sandbox.exchange import Json, iso_seconds, random_id
from sandbox.store import Shelf

#: Base address of the links in responses and events. No server has this address, so a client
#: that follows a link fails, and a test notices that. Clients may use only the path of a link.
LINKS_URL = "https://api.sandbox.holdfast.example"
#: Statuses of refunds that reduce the refundable rest of a capture.
_COUNTED_REFUND_STATUSES = frozenset({"COMPLETED", "PENDING"})
#: Number of failed payments after which the API cannot activate a suspended subscription.
FAILURE_THRESHOLD = 3
#: Currencies that PayPal accepts only without decimals.
_WHOLE_CURRENCIES = frozenset({"HUF", "JPY", "TWD"})
_VALUE_FORM = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")


@dataclass(frozen=True)
class StoredEvent:
    """A webhook exactly as sent, so that it can be sent again."""

    event_id: str
    event_type: str
    transmission_id: str
    headers: dict[str, str]
    body: bytes


class PayPalState:
    """PayPal's resources by PayPal's IDs, oldest first."""

    def __init__(self) -> None:
        self.subscriptions: Shelf[Json] = Shelf("paypal.subscriptions")
        self.captures: Shelf[Json] = Shelf("paypal.captures")
        self.refunds: Shelf[Json] = Shelf("paypal.refunds")
        self.disputes: Shelf[Json] = Shelf("paypal.disputes")
        self.events: Shelf[StoredEvent] = Shelf("paypal.events", _pack_event, _unpack_event)
        #: ID of the resource that the first request made, by operation and PayPal-Request-Id.
        self.made_by_request: Shelf[str] = Shelf("paypal.requests")
        #: When each token expires. A restart forgets the tokens, and clients request new ones.
        self.tokens: dict[str, datetime] = {}

    def shelves(self) -> list[Shelf[Any]]:
        """List the resources that are kept when the sandbox restarts."""
        return [
            self.subscriptions,
            self.captures,
            self.refunds,
            self.disputes,
            self.events,
            self.made_by_request,
        ]

    def newest(self, shelf: Shelf[Json], organization_id: str) -> Json | None:
        """Return the organization's newest resource on a shelf, if any."""
        return shelf.newest(lambda resource: resource.get("custom_id") == organization_id)

    def add_subscription(self, plan_id: str, custom_id: str | None, status: str) -> Json:
        """Create a subscription in any status."""
        now = iso_seconds()
        subscription_id = f"I-{random_id(12)}"
        link = f"{LINKS_URL}/v1/billing/subscriptions/{subscription_id}"
        subscription: Json = {
            "id": subscription_id,
            "plan_id": plan_id,
            "status": status,
            "status_update_time": now,
            "start_time": now,
            "quantity": "1",
            "subscriber": {
                "email_address": "payer@buyers.example",
                "payer_id": random_id(13),
                "name": {"given_name": "Robin", "surname": "Keeler"},
            },
            "billing_info": _billing_info(),
            "create_time": now,
            "update_time": now,
            "plan_overridden": False,
            "links": [
                {"href": link, "rel": "self", "method": "GET"},
                {"href": link, "rel": "edit", "method": "PATCH"},
            ],
        }
        if custom_id is not None:
            subscription["custom_id"] = custom_id
        self.subscriptions[subscription_id] = subscription
        return subscription

    def add_capture(
        self, custom_id: str | None, amount: Json, status: str, capture_id: str = ""
    ) -> Json:
        """Create a capture, as if a buyer had just paid.

        A capture with a given ID belongs to no order. It is a sale: the fee of a subscription.
        """
        has_order = not capture_id
        now = iso_seconds()
        capture_id = capture_id or random_id(17)
        link = f"{LINKS_URL}/v2/payments/captures/{capture_id}"
        zero = money("0.00", amount["currency_code"])
        capture: Json = {
            "id": capture_id,
            "amount": amount,
            "final_capture": True,
            "seller_protection": {"status": "NOT_ELIGIBLE"},
            "seller_receivable_breakdown": {
                "gross_amount": amount,
                "paypal_fee": zero,
                "net_amount": amount,
            },
            "status": status,
            "create_time": now,
            "update_time": now,
            "links": [
                {"href": link, "rel": "self", "method": "GET"},
                {"href": f"{link}/refund", "rel": "refund", "method": "POST"},
            ],
        }
        if has_order:
            capture["supplementary_data"] = {"related_ids": {"order_id": random_id(17)}}
        if custom_id is not None:
            capture["custom_id"] = custom_id
        self.captures[capture_id] = capture
        self.set_capture_status(capture, status)
        return capture

    def set_capture_status(self, capture: Json, status: str) -> None:
        """Set a capture's status and the reason that belongs to the status."""
        capture["status"] = status
        capture["update_time"] = iso_seconds()
        if status == "PENDING":
            capture["status_details"] = {"reason": "PENDING_REVIEW"}
        else:
            capture.pop("status_details", None)

    def refunded_of(self, capture_id: str) -> Decimal:
        """Add up the completed and pending refunds of a capture."""
        return sum(
            (
                Decimal(refund["amount"]["value"])
                for refund in self.refunds.values()
                if capture_of(refund) == capture_id and refund["status"] in _COUNTED_REFUND_STATUSES
            ),
            Decimal(0),
        )

    def unrefunded_of(self, capture: Json) -> Decimal:
        """Return the part of a capture that is not refunded."""
        return Decimal(capture["amount"]["value"]) - self.refunded_of(capture["id"])

    def can_refund(self, capture: Json, value: str) -> bool:
        """Return whether this amount of a capture can be refunded."""
        is_completed = capture["status"] in ("COMPLETED", "PARTIALLY_REFUNDED")
        return is_completed and 0 < Decimal(value) <= self.unrefunded_of(capture)

    def add_refund(self, capture: Json, value: str, status: str = "COMPLETED") -> Json:
        """Refund part or all of a capture, and update the capture's status.

        `total_refunded_amount` is the total of all refunds up to and including this one. As at
        PayPal, the capture itself shows only whether it is refunded partly or completely.
        """
        total = self.refunded_of(capture["id"]) + Decimal(value)
        refund = build_refund(capture, value, f"{total:f}")
        refund["status"] = status
        self.refunds[refund["id"]] = refund
        self._mark_refunded(capture)
        return refund

    def set_refund_status(self, refund: Json, status: str) -> None:
        """Set a refund's status, and update the status of its capture."""
        refund["status"] = status
        refund["update_time"] = iso_seconds()
        self._mark_refunded(self.captures[capture_of(refund)])

    def _mark_refunded(self, capture: Json) -> None:
        if self.unrefunded_of(capture) <= 0:
            status = "REFUNDED"
        else:
            status = "PARTIALLY_REFUNDED" if self.refunded_of(capture["id"]) else "COMPLETED"
        self.set_capture_status(capture, status)


def _pack_event(event: StoredEvent) -> Json:
    return asdict(event) | {"body": event.body.decode()}


def _unpack_event(packed: Json) -> StoredEvent:
    return StoredEvent(**packed | {"body": packed["body"].encode()})


def _billing_info() -> Json:
    cycle = {
        "tenure_type": "REGULAR",
        "sequence": 1,
        "cycles_completed": 1,
        "cycles_remaining": 0,
        "current_pricing_scheme_version": 1,
    }
    return {
        "outstanding_balance": money("0.00", "USD"),
        "cycle_executions": [cycle],
        "next_billing_time": iso_seconds(datetime.now(UTC) + timedelta(days=30)),
        "failed_payments_count": 0,
    }


def set_subscription_status(subscription: Json, status: str, at: str | None = None) -> None:
    """Set any status, as PayPal itself can. `at` defaults to now."""
    subscription["status"] = status
    subscription["status_update_time"] = at or iso_seconds()
    subscription["update_time"] = subscription["status_update_time"]
    if status in ("CANCELLED", "EXPIRED"):
        subscription["billing_info"].pop("next_billing_time", None)


def build_refund(capture: Json, value: str, total: str) -> Json:
    """Build a refund of a capture without storing it."""
    now = iso_seconds()
    currency = capture["amount"]["currency_code"]
    refund_id = random_id(17)
    refund: Json = {
        "id": refund_id,
        "amount": money(value, currency),
        "seller_payable_breakdown": {
            "gross_amount": money(value, currency),
            "paypal_fee": money("0.00", currency),
            "net_amount": money(value, currency),
            "total_refunded_amount": money(total, currency),
        },
        "status": "COMPLETED",
        "create_time": now,
        "update_time": now,
        "links": [
            {
                "href": f"{LINKS_URL}/v2/payments/refunds/{refund_id}",
                "rel": "self",
                "method": "GET",
            },
            {
                "href": f"{LINKS_URL}/v2/payments/captures/{capture['id']}",
                "rel": "up",
                "method": "GET",
            },
        ],
    }
    if "custom_id" in capture:
        refund["custom_id"] = capture["custom_id"]
    return refund


def capture_of(refund: Json) -> str:
    """Return the ID of the capture that a refund belongs to."""
    href: str = next(link["href"] for link in refund["links"] if link["rel"] == "up")
    return href.rsplit("/", 1)[1]


def money(value: str, currency: str) -> Json:
    """Format an amount as PayPal does."""
    if currency in _WHOLE_CURRENCIES:
        value = value.partition(".")[0]
    return {"currency_code": currency, "value": value}


def is_amount(value: object, currency: str) -> bool:
    """Return whether PayPal accepts the text as a positive amount of the currency."""
    if not isinstance(value, str) or not _VALUE_FORM.fullmatch(value) or Decimal(value) == 0:
        return False
    return currency not in _WHOLE_CURRENCIES or "." not in value
