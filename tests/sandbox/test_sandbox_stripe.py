"""Stripe's stand-in: state and signatures."""

from __future__ import annotations

import hashlib
import hmac
import json

import httpx
import pytest


@pytest.fixture
def stripe(sandbox):
    known = sandbox.info["stripe"]
    with httpx.Client(
        base_url=known["base_url"], auth=(known["api_key"], ""), trust_env=False
    ) as client:
        yield client


def assert_signed(sandbox, request) -> None:
    parts = dict(part.split("=", 1) for part in request.headers["Stripe-Signature"].split(","))
    secret = sandbox.info["stripe"]["webhook_secret"].encode()
    text = parts["t"].encode() + b"." + request.body
    assert hmac.compare_digest(hmac.new(secret, text, hashlib.sha256).hexdigest(), parts["v1"])


def test_stripe_subscription_is_created_once_and_stays_cancelled(sandbox, stripe, listener):
    # Given one idempotency key / When a subscription is made twice
    form = {"customer": "cus_1", "items[0][price]": "price_1", "metadata[organization_id]": "org_a"}
    headers = {"Idempotency-Key": "k1"}
    first = stripe.post("/v1/subscriptions", data=form, headers=headers).json()
    again = stripe.post("/v1/subscriptions", data=form, headers=headers).json()
    other = stripe.post("/v1/subscriptions", data=form | {"customer": "x"}, headers=headers)
    # Then there is one, and other parameters under the key are an error
    assert first["id"] == again["id"] and first["metadata"] == {"organization_id": "org_a"}
    assert other.json()["error"]["type"] == "idempotency_error"
    # When it is cancelled / Then it remains cancelled
    path = f"/v1/subscriptions/{first['id']}"
    assert stripe.delete(path).json()["status"] == "canceled"
    assert stripe.delete(path).status_code == 404
    assert stripe.get(path).json()["status"] == "canceled"
    requests = listener.wait_for(2)
    for one in requests:
        assert_signed(sandbox, one)
    types = {json.loads(one.body)["type"] for one in requests}
    assert types == {"customer.subscription.created", "customer.subscription.deleted"}
    events = stripe.get("/v1/events", params={"type": "customer.subscription.deleted"}).json()
    assert [one["data"]["object"]["id"] for one in events["data"]] == [first["id"]]


def test_failed_stripe_invoice_makes_the_subscription_past_due(sandbox, stripe, listener):
    made = sandbox.control("POST", "/stripe/subscriptions", {"organization_id": "org_a"})
    sandbox.control(
        "POST",
        "/stripe/events",
        {"event_type": "invoice.payment_failed", "organization_id": "org_a"},
    )
    paid = {"organization_id": "org_a", "amount": 1234}
    sandbox.control("POST", "/stripe/sessions", paid)
    _, failed, session = (json.loads(one.body) for one in listener.wait_for(3))
    details = failed["data"]["object"]["parent"]["subscription_details"]
    assert details["subscription"] == made["id"]
    assert stripe.get(f"/v1/subscriptions/{made['id']}").json()["status"] == "past_due"
    assert session["data"]["object"]["payment_status"] == "paid"
    assert session["data"]["object"]["amount_total"] == 1234
    # When a signature is forged / Then it does not verify
    forged = {
        "event_type": "customer.subscription.updated",
        "resource_id": made["id"],
        "forge": "signature",
    }
    sandbox.control("POST", "/stripe/events", forged)
    with pytest.raises(AssertionError):
        assert_signed(sandbox, listener.wait_for(4)[3])
