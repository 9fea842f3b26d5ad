"""Customers whose subscription ends by a webhook, and the time until its effect."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from benchmarks.sender import send_all
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner, make_subaccounts, paypal_event

_LIMIT_SECONDS = 60.0
_CLOSED = "BILLING.SUBSCRIPTION.SUSPENDED"

IS_FROZEN = """
    SELECT EXISTS (SELECT FROM wallet_freezes WHERE organization_id = %s AND lifted_at IS NULL)
"""
IS_SUSPENDED = """
    SELECT twilio_actual = 'suspended' AND twilio_converged = twilio_generation FROM brands
    WHERE organization_id = %s
"""


@dataclass(frozen=True)
class Customer:
    organization_id: str
    subscription_id: str
    sid: str


def close(system: System, port: int, signer: PayPalSigner, customer: Customer) -> float:
    """Suspend the subscription at PayPal and send the webhook.

    Return the monotonic time at which the ingress had answered 200.
    """
    path = f"/paypal/subscriptions/{customer.subscription_id}/status"
    system.control("POST", path, {"status": "SUSPENDED", "deliver": False})
    (request,) = signer.requests([paypal_event(_CLOSED, {"id": customer.subscription_id})])
    send_all(port, [request], connections=1)
    return time.monotonic()


def seconds_until(
    owner: psycopg.Connection, question: str, customer: Customer, answered_at: float
) -> float:
    """Wait until a query returns true; return the seconds since the response.

    `answered_at` is the monotonic time of the response to the webhook.

    Raises: SystemExit if the query does not return true within the time limit.
    """
    while time.monotonic() < answered_at + _LIMIT_SECONDS:
        row = owner.execute(question, (customer.organization_id,)).fetchone()
        if row is not None and row[0]:
            return time.monotonic() - answered_at
        time.sleep(0.002)
    raise SystemExit(f"{customer} did not come to it in {_LIMIT_SECONDS:g} s")


def make_customers(system: System, count: int) -> list[Customer]:
    """Create organizations, each with a subscription and an active subaccount."""
    customers = []
    sids = [sid for sid, _ in make_subaccounts(system, count)]
    with system.bench.owner() as owner:
        for sid in sids:
            row = owner.execute(
                "UPDATE brands SET twilio_actual = 'active', twilio_converged = twilio_generation"
                " WHERE twilio_subaccount_sid = %s RETURNING organization_id",
                (sid,),
            ).fetchone()
            organization_id = row[0] if row else ""
            asked = {"organization_id": organization_id, "deliver": False}
            subscription_id = system.control("POST", "/paypal/subscriptions", asked)["id"]
            system.subscribe(organization_id, subscription_id)
            customers.append(Customer(organization_id, subscription_id, sid))
    return customers
