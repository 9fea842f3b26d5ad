"""Stripe's and Vapi's stand-ins: state, signatures, and calls that live."""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import urlsplit

import httpx
import pytest

from base.clock import wait_until

LIMIT_SECONDS = 10.0


@pytest.fixture
def stripe(house):
    known = house.info["stripe"]
    with httpx.Client(
        base_url=known["base_url"], auth=(known["api_key"], ""), trust_env=False
    ) as client:
        yield client


def assert_signed(house, heard) -> None:
    parts = dict(part.split("=", 1) for part in heard.headers["Stripe-Signature"].split(","))
    secret = house.info["stripe"]["webhook_secret"].encode()
    text = parts["t"].encode() + b"." + heard.body
    assert hmac.compare_digest(hmac.new(secret, text, hashlib.sha256).hexdigest(), parts["v1"])


def test_a_stripe_subscription_is_made_once_and_cancelled_for_good(house, stripe, listener):
    # Given one idempotency key / When a subscription is made twice
    form = {"customer": "cus_1", "items[0][price]": "price_1", "metadata[organization_id]": "org_a"}
    headers = {"Idempotency-Key": "k1"}
    first = stripe.post("/v1/subscriptions", data=form, headers=headers).json()
    again = stripe.post("/v1/subscriptions", data=form, headers=headers).json()
    other = stripe.post("/v1/subscriptions", data=form | {"customer": "x"}, headers=headers)
    # Then there is one, and other parameters under the key are an error
    assert first["id"] == again["id"] and first["metadata"] == {"organization_id": "org_a"}
    assert other.json()["error"]["type"] == "idempotency_error"
    # When it is cancelled / Then it stays so
    path = f"/v1/subscriptions/{first['id']}"
    assert stripe.delete(path).json()["status"] == "canceled"
    assert stripe.delete(path).status_code == 404
    assert stripe.get(path).json()["status"] == "canceled"
    heard = listener.wait_for(2)
    for one in heard:
        assert_signed(house, one)
    told = {json.loads(one.body)["type"] for one in heard}
    assert told == {"customer.subscription.created", "customer.subscription.deleted"}
    events = stripe.get("/v1/events", params={"type": "customer.subscription.deleted"}).json()
    assert [one["data"]["object"]["id"] for one in events["data"]] == [first["id"]]


def test_a_failed_stripe_invoice_makes_the_subscription_past_due(house, stripe, listener):
    made = house.control("POST", "/stripe/subscriptions", {"organization_id": "org_a"})
    house.control(
        "POST",
        "/stripe/events",
        {"event_type": "invoice.payment_failed", "organization_id": "org_a"},
    )
    paid = {"organization_id": "org_a", "amount": 1234}
    house.control("POST", "/stripe/sessions", paid)
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
    house.control("POST", "/stripe/events", forged)
    with pytest.raises(AssertionError):
        assert_signed(house, listener.wait_for(4)[3])


def start_call(house, **more):
    return house.control("POST", "/vapi/calls", {"organization_id": "org_a", **more})


def read_call(house, call) -> dict:
    known = house.info["vapi"]
    headers = {"Authorization": f"Bearer {known['api_key']}"}
    return house.http.get(f"/vapi/call/{call['id']}", headers=headers).json()


def wait_for_status(house, call, status: str) -> None:
    assert wait_until(
        lambda: read_call(house, call)["status"] == status, limit_seconds=LIMIT_SECONDS
    )


def control_path(call) -> str:
    return urlsplit(call["monitor"]["controlUrl"]).path


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"type": "end-call"}, "manually-canceled"),
        (
            {"type": "say", "content": "Good bye", "endCallAfterSpoken": True},
            "assistant-said-message-with-end-call-enabled",
        ),
    ],
)
def test_a_call_lives_until_its_control_address_ends_it(house, listener, order, reason):
    # Given a call in progress
    call = start_call(house)
    wait_for_status(house, call, "in-progress")
    # When its control address is told to end it
    assert house.http.post(control_path(call), json=order).is_success
    wait_for_status(house, call, "ended")
    # Then it was told in full, with a report that proves its sender, and cannot be ended again
    heard = listener.wait_for(4)
    messages = [json.loads(one.body)["message"] for one in heard]
    statuses = {one["status"] for one in messages if one["type"] == "status-update"}
    assert statuses == {"ringing", "in-progress", "ended"}
    (report,) = (one for one in messages if one["type"] == "end-of-call-report")
    assert report["endedReason"] == reason and report["durationSeconds"] > 0
    metadata = report["call"]["assistantOverrides"]["metadata"]
    assert metadata == {"organization_id": "org_a"}
    secret = house.info["vapi"]["server_secret"]
    assert {one.headers["Authorization"] for one in heard} == {f"Bearer {secret}"}
    assert house.http.post(control_path(call), json=order).status_code == 404


def test_a_call_ends_at_its_longest_or_unanswered_or_with_its_leg(house, listener):
    account = house.control("POST", "/twilio/subaccounts", {})
    long = start_call(house, max_duration_seconds=0.2)
    lost = start_call(house, answered=False)
    legged = start_call(house, twilio_sid=account["sid"])
    wait_for_status(house, legged, "in-progress")
    # When the leg is completed at Twilio
    known = house.info["twilio"]
    path = f"/twilio/2010-04-01/Accounts/{account['sid']}/Calls/{legged['phoneCallProviderId']}"
    house.http.post(
        f"{path}.json",
        data={"Status": "completed"},
        auth=(known["account_sid"], known["auth_token"]),
    )
    # Then each ends for its own reason
    ends = {}
    for name, call in {"long": long, "lost": lost, "legged": legged}.items():
        wait_for_status(house, call, "ended")
        ends[name] = read_call(house, call)["endedReason"]
    assert ends == {
        "long": "exceeded-max-duration",
        "lost": "customer-did-not-answer",
        "legged": "customer-ended-call",
    }
    assert "startedAt" not in read_call(house, lost)


def test_a_lost_report_is_not_sent_again(house, listener):
    # Given an ingress that refuses / When a message is sent / Then it comes once
    listener.answers = [500]
    sent = house.control(
        "POST", "/vapi/messages", {"type": "assistant-request", "fields": {"a": 1}}
    )
    assert sent[0]["status_code"] == 500
    house.control("POST", "/vapi/messages", {"type": "hang"})
    assert [json.loads(one.body)["message"]["type"] for one in listener.wait_for(2)] == [
        "assistant-request",
        "hang",
    ]
    assert len(house.control("GET", "/deliveries")) == 2
