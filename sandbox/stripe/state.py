"""Stripe's state: subscriptions, sessions, events and idempotent responses.

Amounts are whole numbers in the currency's minor unit, as at Stripe.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict
from typing import Any

from sandbox.exchange import Answer, Json
from sandbox.store import Shelf

#: The API version of the events.
API_VERSION = "2026-10-28.endive"
_MONTH_SECONDS = 30 * 86_400
#: Monthly price of each subscription.
_PRICE_CENTS = 4_900


#: Path and form of the first request with an idempotency key, and its response.
_AnsweredRequest = tuple[str, dict[str, str], Answer]


class StripeState:
    """Stripe's resources by Stripe's IDs, oldest first."""

    def __init__(self) -> None:
        self.subscriptions: Shelf[Json] = Shelf("stripe.subscriptions")
        self.sessions: Shelf[Json] = Shelf("stripe.sessions")
        self.events: Shelf[Json] = Shelf("stripe.events")
        #: The first request with each idempotency key, and its response.
        self.answers: Shelf[_AnsweredRequest] = Shelf(
            "stripe.answers", _pack_request, _unpack_request
        )

    def shelves(self) -> list[Shelf[Any]]:
        """List the resources that a restart keeps."""
        return [self.subscriptions, self.sessions, self.events, self.answers]

    def newest_subscription(self, organization_id: str) -> Json | None:
        """Return the organization's newest subscription, if any."""
        return self.subscriptions.newest(
            lambda subscription: subscription["metadata"].get("organization_id") == organization_id
        )

    def add_subscription(
        self, customer: str, price: str, metadata: dict[str, str], status: str
    ) -> Json:
        """Create a subscription in any status."""
        now = int(time.time())
        subscription_id = new_id("sub")
        item: Json = {
            "id": new_id("si"),
            "object": "subscription_item",
            "price": {
                "id": price,
                "object": "price",
                "currency": "usd",
                "unit_amount": _PRICE_CENTS,
            },
            "quantity": 1,
            "subscription": subscription_id,
            "current_period_start": now,
            "current_period_end": now + _MONTH_SECONDS,
        }
        subscription: Json = {
            "id": subscription_id,
            "object": "subscription",
            "customer": customer,
            "status": status,
            "created": now,
            "start_date": now,
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "ended_at": None,
            "collection_method": "charge_automatically",
            "currency": "usd",
            "items": {"object": "list", "data": [item], "has_more": False},
            "latest_invoice": new_id("in"),
            "livemode": False,
            "metadata": metadata,
            "pause_collection": None,
        }
        self.subscriptions[subscription_id] = subscription
        return subscription

    def add_session(self, metadata: dict[str, str], amount: int, currency: str) -> Json:
        """Open a Checkout session for one payment."""
        now = int(time.time())
        session_id = new_id("cs_test")
        session: Json = {
            "id": session_id,
            "object": "checkout.session",
            "amount_subtotal": amount,
            "amount_total": amount,
            "client_reference_id": metadata.get("organization_id"),
            "created": now,
            "currency": currency,
            "customer": None,
            "expires_at": now + 86_400,
            "livemode": False,
            "metadata": metadata,
            "mode": "payment",
            "payment_intent": None,
            "payment_status": "unpaid",
            "status": "open",
            "subscription": None,
            "url": f"https://checkout.stripe.example/{session_id}",
        }
        self.sessions[session_id] = session
        return session

    def add_event(
        self, event_type: str, resource: Json, event_id: str = "", created: int = 0
    ) -> Json:
        """Store an event about a resource, and return it in the format of the webhook."""
        event: Json = {
            "id": event_id or new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": created or int(time.time()),
            "data": {"object": resource},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": event_type,
        }
        self.events[event["id"]] = event
        return event


def _pack_request(request: _AnsweredRequest) -> list[Any]:
    path, form, answer = request
    return [path, form, asdict(answer) | {"body": answer.body.decode()}]


def _unpack_request(packed: list[Any]) -> _AnsweredRequest:
    path, form, answer = packed
    return path, form, Answer(**answer | {"body": answer["body"].encode()})


def set_subscription_status(subscription: Json, status: str) -> None:
    """Set any status and the times that belong to it."""
    now = int(time.time())
    subscription["status"] = status
    has_ended = status in ("canceled", "incomplete_expired")
    subscription["canceled_at"] = now if status == "canceled" else None
    subscription["ended_at"] = now if has_ended else None


def invoice_of(subscription: Json, *, paid: bool) -> Json:
    """Build the subscription's latest invoice, in the current API version's format."""
    now = int(time.time())
    return {
        "id": subscription["latest_invoice"],
        "object": "invoice",
        "amount_due": _PRICE_CENTS,
        "amount_paid": _PRICE_CENTS if paid else 0,
        "amount_remaining": 0 if paid else _PRICE_CENTS,
        "attempt_count": 1,
        "attempted": True,
        "billing_reason": "subscription_cycle",
        "created": now,
        "currency": "usd",
        "customer": subscription["customer"],
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None if paid else now + 3 * 86_400,
        "parent": {
            "type": "subscription_details",
            "subscription_details": {
                "subscription": subscription["id"],
                "metadata": subscription["metadata"],
            },
        },
        "status": "paid" if paid else "open",
    }


def new_id(kind: str) -> str:
    """Generate an ID in Stripe's format."""
    return f"{kind}_{secrets.token_hex(12)}"
