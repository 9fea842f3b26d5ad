"""PayPal's stand-in: valid signatures, status rules, cumulative refunds."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.verification import PolicyBuilder, Store

from sandbox.keys import CERTIFICATE_NAME


def verify_offline(sandbox, headers, body, webhook_id=None) -> None:
    """Verify a webhook as the receiver does, without a request to PayPal's API.

    Fetch the leaf certificate, check its chain and name, then check the signed text.
    """
    known = sandbox.info["paypal"]
    got = {name.upper(): value for name, value in headers.items()}
    leaf = x509.load_pem_x509_certificate(
        httpx.get(got["PAYPAL-CERT-URL"], trust_env=False).raise_for_status().content
    )
    issuer = x509.load_pem_x509_certificate(Path(known["ca_file"]).read_bytes())
    name = x509.DNSName(CERTIFICATE_NAME)
    PolicyBuilder().store(Store([issuer])).build_server_verifier(name).verify(leaf, [])
    text = "|".join(
        [
            got["PAYPAL-TRANSMISSION-ID"],
            got["PAYPAL-TRANSMISSION-TIME"],
            webhook_id or known["webhook_id"],
            str(zlib.crc32(body) & 0xFFFFFFFF),
        ]
    )
    signature = base64.b64decode(got["PAYPAL-TRANSMISSION-SIG"])
    leaf.public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())


def event(sandbox, event_type, organization_id="org_a", **more):
    body = {"event_type": event_type, "organization_id": organization_id, **more}
    return sandbox.control("POST", "/paypal/events", body)


def subscription(sandbox, **more):
    body = {"organization_id": "org_a", "deliver": False, **more}
    return sandbox.control("POST", "/paypal/subscriptions", body)


def test_delivered_webhook_verifies_offline(sandbox, listener):
    # Given an organization without a subscription / When PayPal reports that it was cancelled
    sent = event(sandbox, "BILLING.SUBSCRIPTION.CANCELLED", organization_id="org_ä")
    # Then one was made and cancelled, and the webhook is signed over its exact bytes
    (request,) = listener.wait_for(1)
    assert request.path == "/webhooks/paypal"
    verify_offline(sandbox, request.headers, request.body)
    body = json.loads(request.body)
    assert body["id"] == sent[0]["event_id"] and sent[0]["status_code"] == 200
    assert body["resource"]["status"] == "CANCELLED"
    assert body["resource"]["custom_id"] == "org_ä"
    assert body["resource_version"] == "2.0"


@pytest.mark.parametrize(
    "event_type", ["PAYMENT.CAPTURE.COMPLETED", "BILLING.SUBSCRIPTION.ACTIVATED"]
)
def test_forged_body_with_the_same_crc_verifies(sandbox, listener, event_type):
    # Given a genuine event / When an attacker sends another body with its exact headers
    (genuine,) = event(sandbox, event_type)
    sandbox.control(
        "POST", f"/paypal/events/{genuine['event_id']}/redeliver", {"forge": "body_crc"}
    )
    # Then both verify, although their content differs
    first, forged = listener.wait_for(2)
    assert forged.body != first.body and zlib.crc32(forged.body) == zlib.crc32(first.body)
    assert forged.headers["PAYPAL-TRANSMISSION-ID"] == first.headers["PAYPAL-TRANSMISSION-ID"]
    verify_offline(sandbox, forged.headers, forged.body)
    assert json.loads(forged.body)["id"] != json.loads(first.body)["id"]
    if "CAPTURE" in event_type:
        assert json.loads(forged.body)["resource"]["amount"]["value"] == "99999.00"


def test_other_forgeries_do_not_verify(sandbox, listener):
    # Given a subscription that PayPal has suspended
    subscription(sandbox, status="SUSPENDED")
    # When one signature is damaged, and another is genuine but for the simulator's webhook
    event(sandbox, "BILLING.SUBSCRIPTION.ACTIVATED", forge="signature")
    event(sandbox, "BILLING.SUBSCRIPTION.ACTIVATED", forge="webhook_id")
    spoilt, simulated = listener.wait_for(2)
    # Then neither is valid for ours, and PayPal's own state is unchanged
    (held,) = sandbox.control("GET", "/paypal/subscriptions?organization_id=org_a")
    assert held["status"] == "SUSPENDED"
    for request in (spoilt, simulated):
        with pytest.raises(InvalidSignature):
            verify_offline(sandbox, request.headers, request.body)
    verify_offline(sandbox, simulated.headers, simulated.body, webhook_id="WEBHOOK_ID")


def test_copies_and_redeliveries_are_the_same_bytes(sandbox, listener):
    # When three copies arrive at once and the event is sent again later
    sent = event(sandbox, "BILLING.SUBSCRIPTION.ACTIVATED", copies=3)
    sandbox.control("POST", f"/paypal/events/{sent[0]['event_id']}/redeliver", {"copies": 2})
    # Then all five are the same
    requests = listener.wait_for(5)
    assert len({one.body for one in requests}) == 1
    assert len({one.headers["PAYPAL-TRANSMISSION-SIG"] for one in requests}) == 1
    stored = sandbox.control("GET", f"/paypal/events/{sent[0]['event_id']}")
    assert stored["body"].encode() == requests[0].body


def test_refused_delivery_is_sent_again(sandbox, listener):
    # Given an ingress that is down for one delivery
    listener.answers = [503]
    # When an event is sent / Then PayPal repeats it
    (sent,) = event(sandbox, "BILLING.SUBSCRIPTION.ACTIVATED")
    assert sent["status_code"] == 503
    first, second = listener.wait_for(2)
    assert first.body == second.body


def test_stale_event_shows_the_old_state_and_changes_nothing(sandbox, paypal, listener):
    # Given a cancelled subscription / When an old event reports that it is active
    made = subscription(sandbox, status="CANCELLED")
    event(
        sandbox,
        "BILLING.SUBSCRIPTION.ACTIVATED",
        keep_state=True,
        create_time="2026-01-02T03:04:05Z",
    )
    (request,) = listener.wait_for(1)
    # Then the event shows the old state and the API does not
    body = json.loads(request.body)
    assert (body["resource"]["id"], body["resource"]["status"]) == (made["id"], "ACTIVE")
    assert body["create_time"] == "2026-01-02T03:04:05Z"
    shown = paypal.get(f"/v1/billing/subscriptions/{made['id']}").json()
    assert shown["status"] == "CANCELLED"


def verification(sandbox, headers, body: bytes, **changed) -> dict:
    fields = {
        "auth_algo": headers["PAYPAL-AUTH-ALGO"],
        "cert_url": headers["PAYPAL-CERT-URL"],
        "transmission_id": headers["PAYPAL-TRANSMISSION-ID"],
        "transmission_sig": headers["PAYPAL-TRANSMISSION-SIG"],
        "transmission_time": headers["PAYPAL-TRANSMISSION-TIME"],
        "webhook_id": sandbox.info["paypal"]["webhook_id"],
    }
    text = json.dumps(fields | changed)[:-1]
    return {"content": text.encode() + b', "webhook_event": ' + body + b"}"}


def test_verification_api_checks_the_event_byte_for_byte(sandbox, paypal, listener):
    event(sandbox, "PAYMENT.CAPTURE.COMPLETED")
    (request,) = listener.wait_for(1)
    path = "/v1/notifications/verify-webhook-signature"
    # When the text is passed on unchanged / Then it succeeds
    answer = paypal.post(path, **verification(sandbox, request.headers, request.body))
    assert answer.json() == {"verification_status": "SUCCESS"}
    # When it is serialized again, or another webhook is named / Then it fails, with status 200
    anew = json.dumps(json.loads(request.body), indent=1).encode()
    for question in (
        verification(sandbox, request.headers, anew),
        verification(sandbox, request.headers, request.body, webhook_id="ANOTHER1"),
    ):
        answer = paypal.post(path, **question)
        assert (answer.status_code, answer.json()["verification_status"]) == (200, "FAILURE")
    # When a field is missing / Then there is no verdict at all
    answer = paypal.post(path, **verification(sandbox, request.headers, request.body, cert_url=""))
    assert answer.status_code == 400


def test_wrong_credentials_and_tokens_are_refused(sandbox, paypal):
    base = sandbox.info["paypal"]["base_url"]
    form = {"grant_type": "client_credentials"}
    wrong = httpx.post(f"{base}/v1/oauth2/token", auth=("a", "b"), data=form, trust_env=False)
    assert wrong.status_code == 401
    path = "/v1/billing/subscriptions/I-NONE"
    assert paypal.get(path).status_code == 404
    # When every token is revoked / Then the client's token is refused
    sandbox.control("DELETE", "/paypal/tokens")
    assert paypal.get(path).status_code == 401


@pytest.mark.parametrize(
    ("status", "operation", "after"),
    [
        ("ACTIVE", "suspend", "SUSPENDED"),
        ("ACTIVE", "cancel", "CANCELLED"),
        ("SUSPENDED", "activate", "ACTIVE"),
        ("SUSPENDED", "cancel", "CANCELLED"),
        ("ACTIVE", "activate", None),
        ("SUSPENDED", "suspend", None),
        ("APPROVAL_PENDING", "cancel", None),
        ("CANCELLED", "cancel", None),
        ("CANCELLED", "activate", None),
        ("EXPIRED", "suspend", None),
    ],
)
def test_subscription_changes_only_to_allowed_states(
    sandbox, paypal, listener, status, operation, after
):
    # Given a subscription / When a status change is requested
    made = subscription(sandbox, status=status)
    path = f"/v1/billing/subscriptions/{made['id']}"
    answer = paypal.post(f"{path}/{operation}", json={"reason": "a test"})
    shown = paypal.get(path).json()
    # Then it changes and sends an event, or the request is refused and nothing has changed
    if after:
        assert (answer.status_code, answer.content) == (204, b"")
        assert shown["status"] == after
        (request,) = listener.wait_for(1)
        assert json.loads(request.body)["resource"]["status"] == after
    else:
        assert answer.status_code == 422
        assert answer.json()["details"][0]["issue"] == "SUBSCRIPTION_STATUS_INVALID"
        assert shown["status"] == status and not listener.received


def test_subscription_change_is_refused_without_a_reason_or_when_past_due(
    sandbox, paypal, listener
):
    made = subscription(sandbox, status="ACTIVE")
    path = f"/v1/billing/subscriptions/{made['id']}"
    assert paypal.post(f"{path}/cancel", json={}).status_code == 400
    answer = paypal.post(f"{path}/cancel", json={"reason": "x" * 129})
    assert answer.json()["details"][0]["issue"] == "INVALID_STRING_MAX_LENGTH"
    # Given three failed payments and the suspension that follows
    for _ in range(3):
        event(sandbox, "BILLING.SUBSCRIPTION.PAYMENT.FAILED")
    event(sandbox, "BILLING.SUBSCRIPTION.SUSPENDED")
    # When it is activated / Then it is refused
    answer = paypal.post(f"{path}/activate")
    assert answer.json()["details"][0]["issue"] == "SUBSCRIPTION_CANNOT_BE_ACTIVATED"
    assert paypal.get(path).json()["billing_info"]["failed_payments_count"] == 3


def test_one_request_id_creates_one_subscription(sandbox, paypal, listener):
    body = {"plan_id": "P-1", "custom_id": "org_b"}
    headers = {"PayPal-Request-Id": "same"}
    first = paypal.post("/v1/billing/subscriptions", json=body, headers=headers)
    again = paypal.post("/v1/billing/subscriptions", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() and first.json()["status"] == "APPROVAL_PENDING"
    (request,) = listener.wait_for(1)
    assert json.loads(request.body)["event_type"] == "BILLING.SUBSCRIPTION.CREATED"


def test_refunds_add_up_to_the_captured_amount_at_most(sandbox, paypal, listener):
    # Given a payment of 20.00
    capture = sandbox.control(
        "POST",
        "/paypal/captures",
        {"organization_id": "org_a", "value": "20.00", "currency": "USD", "deliver": False},
    )
    path = f"/v2/payments/captures/{capture['id']}"
    part = {"amount": {"currency_code": "USD", "value": "7.50"}}
    # When part is refunded, with a repeat, and then the rest
    headers = {"PayPal-Request-Id": "once", "Prefer": "return=representation"}
    first = paypal.post(f"{path}/refund", json=part, headers=headers)
    repeat = paypal.post(f"{path}/refund", json=part, headers=headers)
    assert (first.status_code, repeat.status_code) == (201, 200)
    assert first.json()["id"] == repeat.json()["id"]
    assert paypal.get(path).json()["status"] == "PARTIALLY_REFUNDED"
    too_much = {"amount": {"currency_code": "USD", "value": "12.51"}}
    answer = paypal.post(f"{path}/refund", json=too_much)
    assert answer.json()["details"][0]["issue"] == "REFUND_AMOUNT_EXCEEDED"
    second = paypal.post(f"{path}/refund").json()
    # Then each refund shows the total refunded so far, and links to the payment
    shown = paypal.get(f"/v2/payments/refunds/{second['id']}").json()
    assert shown["amount"] == {"currency_code": "USD", "value": "12.50"}
    totals = [
        one["seller_payable_breakdown"]["total_refunded_amount"]["value"]
        for one in (first.json(), shown)
    ]
    assert totals == ["7.50", "20.00"]
    up = next(link["href"] for link in shown["links"] if link["rel"] == "up")
    assert up.endswith(path) and shown["custom_id"] == "org_a"
    assert paypal.get(path).json()["status"] == "REFUNDED"
    answer = paypal.post(f"{path}/refund")
    assert answer.json()["details"][0]["issue"] == "CAPTURE_FULLY_REFUNDED"
    requests = listener.wait_for(2)
    assert {json.loads(one.body)["event_type"] for one in requests} == {"PAYMENT.CAPTURE.REFUNDED"}


def paid(sandbox, **more):
    body = {"organization_id": "org_a", "value": "20.00", "deliver": False, **more}
    return sandbox.control("POST", "/paypal/captures", body)


def test_failed_pending_refund_updates_its_capture(sandbox, paypal, listener):
    # Given a payment with a pending refund of all of it
    capture = paid(sandbox)
    path = f"/v2/payments/captures/{capture['id']}"
    asked = {"status": "PENDING", "deliver": False}
    refund = sandbox.control("POST", f"/paypal/captures/{capture['id']}/refund", asked)
    assert paypal.get(path).json()["status"] == "REFUNDED"
    # When it fails
    sandbox.control("POST", f"/paypal/refunds/{refund['id']}/status", {"status": "FAILED"})
    # Then an event reports it, and the payment is no longer refunded
    (request,) = listener.wait_for(1)
    assert json.loads(request.body)["event_type"] == "PAYMENT.REFUND.FAILED"
    assert paypal.get(f"/v2/payments/refunds/{refund['id']}").json()["status"] == "FAILED"
    assert paypal.get(path).json()["status"] == "COMPLETED"


def test_dispute_is_opened_resolved_and_opened_again(sandbox, paypal, listener):
    # Given a dispute of a part of a payment
    capture = paid(sandbox)
    made = sandbox.control(
        "POST", "/paypal/disputes", {"capture_id": capture["id"], "value": "7.50"}
    )
    path = f"/v1/customer/disputes/{made['dispute_id']}"
    # When it is resolved with a partial refund, and then appealed
    shown = [paypal.get(path).json()]
    outcome = {"outcome_code": "RESOLVED_BUYER_FAVOUR", "refunded": "5.00"}
    sandbox.control("POST", f"/paypal/disputes/{made['dispute_id']}/resolve", outcome)
    shown.append(paypal.get(path).json())
    sandbox.control("POST", f"/paypal/disputes/{made['dispute_id']}/reopen")
    shown.append(paypal.get(path).json())
    # Then the API shows each step, and a signed event in the version 1 format reports it
    assert [one["status"] for one in shown] == ["OPEN", "RESOLVED", "UNDER_REVIEW"]
    assert shown[1]["dispute_outcome"] == {
        "outcome_code": "RESOLVED_BUYER_FAVOUR",
        "amount_refunded": {"currency_code": "USD", "value": "5.00"},
    }
    assert "dispute_outcome" not in shown[2]
    assert shown[0]["update_time"] <= shown[1]["update_time"] <= shown[2]["update_time"]
    requests = listener.wait_for(3)
    for one in requests:
        verify_offline(sandbox, one.headers, one.body)
    bodies = [json.loads(one.body) for one in requests]
    event_types = [body["event_type"].rsplit(".", 1)[1] for body in bodies]
    assert event_types == ["CREATED", "RESOLVED", "UPDATED"]
    assert all("resource_version" not in body for body in bodies)
    transaction = bodies[0]["resource"]["disputed_transactions"][0]
    assert transaction["seller_transaction_id"] == capture["id"]


def test_triggered_dispute_events_set_what_they_imply(sandbox, paypal, listener):
    # Given a payment / When a dispute of it is triggered to its end, and another one begins
    paid(sandbox)
    for event_type in ("CREATED", "CREATED", "RESOLVED", "CREATED"):
        event(sandbox, f"CUSTOMER.DISPUTE.{event_type}")
    sent = [json.loads(one.body)["resource"] for one in listener.wait_for(4)]
    # Then it is the same dispute until it is decided
    ids = [one["dispute_id"] for one in sent]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert paypal.get(f"/v1/customer/disputes/{ids[0]}").json()["status"] == "RESOLVED"
    assert paypal.get(f"/v1/customer/disputes/{ids[3]}").json()["status"] == "OPEN"
    # And a stale event changes nothing
    event(sandbox, "CUSTOMER.DISPUTE.RESOLVED", keep_state=True)
    assert paypal.get(f"/v1/customer/disputes/{ids[3]}").json()["status"] == "OPEN"


@pytest.mark.parametrize(
    "path",
    ["/disputes/PP-D-NONE/resolve", "/disputes/PP-D-NONE/reopen", "/refunds/NONE/status"],
)
def test_control_answers_404_for_an_unknown_object(sandbox, path):
    asked = {"resolve": {"outcome_code": "NONE"}, "status": {"status": "FAILED"}, "reopen": {}}
    sandbox.control("POST", f"/paypal{path}", asked[path.rsplit("/", 1)[1]], 404)
    sandbox.control("POST", "/paypal/disputes", {"capture_id": "NONE"}, 404)


def test_top_up_names_its_order_and_a_fee_names_none(sandbox, paypal, listener):
    capture = paid(sandbox)
    assert capture["supplementary_data"]["related_ids"]["order_id"]
    event(sandbox, "PAYMENT.SALE.COMPLETED")
    sale = json.loads(listener.wait_for(1)[0].body)["resource"]["id"]
    assert "supplementary_data" not in paypal.get(f"/v2/payments/captures/{sale}").json()


def test_subscription_payment_event_has_the_first_shape(sandbox, paypal, listener):
    made = subscription(sandbox)
    event(sandbox, "PAYMENT.SALE.COMPLETED", value="12.00", currency="EUR")
    event(sandbox, "PAYMENT.SALE.REVERSED", value="12.00", currency="EUR")
    paid, reversed_ = (json.loads(one.body) for one in listener.wait_for(2))
    assert "resource_version" not in paid
    assert paid["resource"]["billing_agreement_id"] == made["id"]
    assert paid["resource"]["amount"]["total"] == "12.00"
    assert reversed_["resource"]["amount"]["total"] == "-12.00"
    shown = paypal.get(f"/v2/payments/captures/{paid['resource']['id']}").json()
    assert shown["amount"] == {"currency_code": "EUR", "value": "12.00"}


def test_control_names_each_wrong_field(sandbox):
    answer = sandbox.control(
        "POST", "/paypal/captures", {"organisation_id": "x", "value": 1.5}, 422
    )
    assert {one["field"] for one in answer["fields"]} >= {"organization_id", "organisation_id"}
    unknown_event = {"event_type": "BILLING.SUBSCRIPTION.EXPIRED", "resource_id": "I-UNKNOWN"}
    sandbox.control("POST", "/paypal/events", unknown_event, 404)
