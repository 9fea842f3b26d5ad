"""PayPal's webhooks: verified events alone are stored, once, before the answer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from base.clock import wait_until
from base.settings import Settings
from db.models import Alert, InboxEvent, Job
from providers.paypal import download_failures
from tests.ingress.support import SUSPENDED, Message, paypal_event
from tests.providers.support import SAMPLES

SIGNED = SAMPLES / "paypal" / "signed"
PROBLEM = "application/problem+json"


def is_refused(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == status and problem["title"]
    return True


def nothing_is_stored(world):
    return world.read(InboxEvent) == [] and world.read(Job) == []


@pytest.mark.parametrize("path", ["/webhooks/paypal", "/api/webhooks/paypal"])
def test_genuine_event_is_stored_with_its_job_in_one_commit(world, ingress, path):
    # When PayPal reports a suspension
    message = ingress.genuine()
    answer = ingress.send(message, path)

    # Then it is answered with 200
    assert answer.status_code == 200
    assert answer.json()["verdict"] == "new"

    # And the event is stored byte for byte, with one job, in the same transaction
    (event,) = world.read(InboxEvent)
    (job,) = world.read(Job)
    assert event.body == message.body
    assert (event.source, event.event_type, event.handled_at) == ("paypal", SUSPENDED, None)
    assert event.transmission_id == message.headers["PAYPAL-TRANSMISSION-ID"]
    assert job.kwargs == {"event_id": event.id}
    correlation_id = answer.json()["correlation_id"]
    assert event.correlation_id == job.correlation_id == correlation_id
    with world.database.engine.connect() as connection:
        same = text("SELECT inbox.xmin::text = jobs.xmin::text FROM inbox, jobs")
        assert connection.execute(same).scalar_one()


@pytest.mark.parametrize(
    ("event_type", "queue"),
    [
        (SUSPENDED, "safety"),
        ("BILLING.SUBSCRIPTION.ACTIVATED", "safety"),
        ("PAYMENT.CAPTURE.COMPLETED", "billing"),
        ("CUSTOMER.DISPUTE.CREATED", "safety"),
    ],
)
def test_event_goes_to_the_queue_of_its_urgency(world, ingress, event_type, queue):
    assert ingress.send(ingress.genuine(event_type)).status_code == 200
    assert world.read(Job)[0].queue == queue


def test_event_that_concerns_nothing_is_stored_without_a_job(world, ingress):
    assert ingress.send(ingress.genuine("BILLING.PLAN.CREATED")).status_code == 200
    (event,) = world.read(InboxEvent)
    assert (event.outcome, event.body is not None, world.read(Job)) == ("ignored", True, [])


def test_repeated_event_is_stored_once(world, ingress):
    # Given an event that was delivered
    deliveries = ingress.sandbox.control(
        "POST", "/paypal/events", {"event_type": SUSPENDED, "organization_id": "org_one"}
    )
    assert [one["status_code"] for one in deliveries] == [200]
    event_id = deliveries[0]["event_id"]

    # When PayPal delivers it five times more, all at once
    again = ingress.sandbox.control("POST", f"/paypal/events/{event_id}/redeliver", {"copies": 5})

    # Then each delivery is accepted, and there is one event and one job
    assert [one["status_code"] for one in again] == [200] * 5
    assert {json.loads(one["body"])["verdict"] for one in again} == {"duplicate"}
    assert (len(world.read(InboxEvent)), len(world.read(Job))) == (1, 1)


def test_concurrent_first_copies_are_stored_once(world, ingress):
    message = ingress.genuine()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ingress.send(message), range(8)))

    assert {one.status_code for one in answers} == {200}
    assert sorted(one.json()["verdict"] for one in answers) == ["duplicate"] * 7 + ["new"]
    assert (len(world.read(InboxEvent)), len(world.read(Job))) == (1, 1)


@pytest.mark.parametrize("forge", ["signature", "webhook_id"])
def test_forged_event_is_refused_and_nothing_is_stored(world, ingress, forge):
    # When an event arrives that PayPal did not sign for our webhook
    (delivery,) = ingress.sandbox.control(
        "POST",
        "/paypal/events",
        {"event_type": SUSPENDED, "organization_id": "org_one", "forge": forge},
    )

    # Then it is refused with a problem that reveals nothing
    assert delivery["status_code"] == 401
    assert delivery["headers"]["content-type"] == PROBLEM
    assert nothing_is_stored(world)


def test_another_body_under_a_genuine_signature_is_refused(world, ingress):
    # Given an accepted event, whose signature covers only a CRC32 of its body
    (first,) = ingress.sandbox.control(
        "POST",
        "/paypal/events",
        {
            "event_type": "PAYMENT.CAPTURE.COMPLETED",
            "organization_id": "org_one",
            "value": "10.00",
        },
    )
    (before,) = world.read(InboxEvent)

    # When another body with the same CRC32 arrives under the same signature
    path = f"/paypal/events/{first['event_id']}/redeliver"
    (forged,) = ingress.sandbox.control("POST", path, {"forge": "body_crc"})

    # Then it is refused, the stored event is unchanged, and an alert is raised
    assert forged["status_code"] == 401
    (after,) = world.read(InboxEvent)
    assert after.body == before.body
    assert len(world.read(Job)) == 1
    (alert,) = world.read(Alert, kind="event_differs")
    assert (alert.organization_id, alert.subject) == (None, before.transmission_id)
    assert (alert.severity, alert.details["source"]) == ("critical", "paypal")

    # And the genuine event may still be delivered again
    assert ingress.sandbox.control("POST", path, {})[0]["status_code"] == 200


def test_another_body_under_a_known_event_id_is_refused(world, ingress):
    assert ingress.send(ingress.signed(paypal_event())).status_code == 200

    other = ingress.signed(paypal_event(event_type="BILLING.SUBSCRIPTION.ACTIVATED"))

    assert is_refused(ingress.send(other), 401)
    assert world.read(InboxEvent)[0].event_type == SUSPENDED


@pytest.mark.parametrize("age", [timedelta(days=4), timedelta(days=-1)])
def test_transmission_that_is_too_old_or_in_the_future_is_refused(world, ingress, age):
    assert is_refused(ingress.send(ingress.signed(paypal_event(), age=age)), 401)
    assert nothing_is_stored(world)


def test_certificate_of_another_host_is_never_requested(world, ingress):
    message = ingress.genuine()

    for url in (
        "https://evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
    ):
        assert is_refused(ingress.send(message, **{"PAYPAL-CERT-URL": url}), 401)

    assert nothing_is_stored(world)
    assert ingress.sandbox.requests(provider="paypal", path_contains="/certs/") == []


@pytest.mark.parametrize(
    "name",
    [
        "PAYPAL-TRANSMISSION-ID",
        "PAYPAL-TRANSMISSION-TIME",
        "PAYPAL-TRANSMISSION-SIG",
        "PAYPAL-CERT-URL",
        "PAYPAL-AUTH-ALGO",
    ],
)
def test_missing_or_odd_header_is_refused(world, ingress, name):
    message = ingress.genuine()
    others = {key: one for key, one in message.headers.items() if key != name}

    for value in (None, "", "x" * 600, "a\tb", "é".encode("latin-1")):
        headers = others if value is None else {**others, name: value}
        answer = ingress.client.post("/webhooks/paypal", content=message.body, headers=headers)
        assert is_refused(answer, 401)

    assert nothing_is_stored(world)


def test_header_given_twice_is_refused(world, ingress):
    message = ingress.genuine()
    headers = [*message.headers.items(), ("PAYPAL-TRANSMISSION-ID", "another-id")]

    answer = ingress.client.post("/webhooks/paypal", content=message.body, headers=headers)

    assert is_refused(answer, 401)
    assert nothing_is_stored(world)


def test_event_of_an_unknown_type_is_accepted(world, ingress):
    assert ingress.send(ingress.genuine("SOMETHING.NEVER.SEEN")).status_code == 200
    assert world.read(InboxEvent)[0].event_type == "SOMETHING.NEVER.SEEN"


def test_event_is_answered_503_when_its_certificate_is_unavailable(world, ingress, monkeypatch):
    # Given that PayPal does not serve its certificate
    monkeypatch.setattr(download_failures, "FAILURE_SECONDS", 0.2)
    fault = ingress.sandbox.fault("paypal", "status", match={"path_contains": "/certs/"})
    message = ingress.genuine()

    # When a genuine event arrives, Then it is answered 503, and nothing is stored
    answer = ingress.send(message)
    assert is_refused(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert nothing_is_stored(world)

    # And once the certificate can be downloaded, the event is accepted on its next delivery
    ingress.sandbox.control("DELETE", f"/faults/{fault}")
    assert wait_until(lambda: ingress.send(message).status_code == 200, limit_seconds=20)
    assert len(world.read(InboxEvent)) == 1


def test_flood_sends_one_request_to_a_failing_certificate_host(world, ingress):
    # Given that PayPal sets a Retry-After that is longer than this test
    fault = ingress.sandbox.fault(
        "paypal",
        "status",
        status=429,
        headers={"Retry-After": "60"},
        match={"path_contains": "/certs/"},
    )
    message = ingress.genuine()

    # When many deliveries arrive at once at an ingress that has no certificate yet
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ingress.send(message), range(40)))

    # Then each is answered 503, and PayPal was asked once
    assert all(is_refused(answer, 503) for answer in answers)
    assert nothing_is_stored(world)
    assert len(ingress.sandbox.requests(provider="paypal", path_contains="/certs/")) == 1

    # And the ingress does not ask PayPal again before the wait is over
    ingress.sandbox.control("DELETE", f"/faults/{fault}")
    assert is_refused(ingress.send(message), 503)


def test_event_may_be_verified_by_paypals_api(world, start_ingress, settings):
    # Given an ingress that verifies events through PayPal's API
    ingress = start_ingress(settings.model_copy(update={"paypal_verification": "api"}))
    message = ingress.genuine()
    fault = ingress.sandbox.fault("paypal", "status", match={"path_contains": "/verify-webhook"})

    # When PayPal's API fails, Then the event is neither accepted nor refused as forged
    answer = ingress.send(message)
    assert is_refused(answer, 503)
    ingress.sandbox.control("DELETE", f"/faults/{fault}")

    # And when it answers, the genuine event is accepted and a forged one is refused
    assert ingress.send(message).status_code == 200
    forged = Message(message.headers, message.body.replace(b"SUSPENDED", b"CANCELLED"))
    assert is_refused(ingress.send(forged), 401)
    assert len(world.read(InboxEvent)) == 1


@pytest.mark.parametrize("value", ["WEBHOOK_ID", "webhook_id"])
def test_simulators_webhook_id_is_refused_as_a_setting(settings, value):
    given = {**settings.model_dump(), "paypal_webhook_id": value}
    with pytest.raises(ValueError, match="simulator"):
        Settings.model_validate(given)


def _samples():
    return sorted(SIGNED.glob("*.meta.json")) if SIGNED.is_dir() else []


@pytest.mark.skipif(not _samples(), reason="the public samples are not beside the project")
@pytest.mark.parametrize("meta", _samples(), ids=lambda path: path.name.partition(".")[0])
def test_real_messages_that_were_signed_for_others_are_refused(world, ingress, meta):
    # Given a message with PayPal's own signature, for its simulator or for another merchant
    known = json.loads(meta.read_text())
    body = meta.with_name(meta.name.replace(".meta.json", ".body")).read_bytes()
    headers = {**known["headers"], "Content-Type": "application/json"}
    headers = {key: value for key, value in headers.items() if key.lower() != "content-length"}

    # When it is sent to us, Then it is refused
    assert is_refused(ingress.send(Message(headers, body)), 401)
    assert nothing_is_stored(world)
