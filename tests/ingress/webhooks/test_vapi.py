"""Vapi's messages: authenticated, then stored once per fact or answered at once."""

from __future__ import annotations

import hashlib
import hmac
import json
import time

import pytest

from base.operators import Operator
from db.models import Alert, CallHold, InboxEvent, Job
from domain import operator_actions
from tests.ingress.calls.callers import send, vapi_headers
from tests.providers.support import SAMPLES

OF_VAPI = SAMPLES / "vapi"


@pytest.mark.parametrize("path", ["/webhooks/vapi", "/api/vapi/webhook"])
def test_status_is_stored_once_per_fact_for_the_safety_queue(caller, world, ingress, path):
    # When the same status arrives three times, once with a different body
    message = caller.message("status-update", status="ringing")
    verdicts = [send(ingress, message, path).json()["verdict"] for _ in range(2)]
    message["timestamp"] += 1
    verdicts.append(send(ingress, message, path).json()["verdict"])
    # Then it is stored once
    assert verdicts == ["new", "duplicate", "differs"]
    (event,) = world.read(InboxEvent)
    call_id = message["call"]["id"]
    assert (event.source, event.external_id) == ("vapi", f"{call_id}:status-update:ringing")
    (job,) = world.read(Job, name="process_event")
    assert job.queue == "safety"


@pytest.mark.parametrize(
    "kind",
    [
        "transcript",
        "transcript[transcriptType='final']",
        "conversation-update",
        "speech-update",
        "hang",
        "model-output",
        "user-interrupted",
        "language-changed",
        "chat.created",
        "session.updated",
    ],
)
def test_message_without_an_effect_is_answered_and_not_stored(caller, world, ingress, kind):
    answer = send(ingress, caller.message(kind))
    assert (answer.status_code, answer.json()["verdict"]) == (200, "ignored")
    assert world.read(InboxEvent) == []


def test_unknown_type_is_kept_and_marked_ignored(caller, world, ingress):
    assert send(ingress, caller.message("call.rewound")).json()["verdict"] == "new"
    world.run_due()
    (event,) = world.read(InboxEvent)
    assert (event.event_type, event.outcome) == ("call.rewound", "ignored")


def test_requests_for_other_servers_get_a_valid_empty_answer(caller, ingress):
    def answer(kind):
        return send(ingress, caller.message(kind)).json()

    assert answer("tool-calls") == {"results": []}
    assert answer("transfer-destination-request") == {}
    assert answer("voice-request") == {"data": ""}
    assert answer("call.endpointing.request") == {"timeoutSeconds": 0.5}
    assert answer("handoff-destination-request")["destination"] == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"message":[]}',
        b'{"message":{}}',
        b'{"message":{"type":""}}',
        b'{"message":{"type":7}}',
        b'{"message":{"type":"a\\u0000b"}}',
        b'{"message":{"type":"' + b"x" * 200 + b'"}}',
        b'{"message":{"type":"assistant-request"}}',
        b'{"message":{"type":"assistant-request","call":{"id":"\\u0000"}}}',
        b'{"message":{"type":"campaign.predial"}}',
        b'{"message":{"type":"status-update","timestamp":NaN}}',
        b"[" * 100_000,
    ],
)
def test_body_without_a_message_is_malformed(world, sandbox, ingress, body):
    answer = ingress.client.post("/webhooks/vapi", content=body, headers=vapi_headers(sandbox))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert world.read(InboxEvent) == []


def test_report_that_names_no_call_is_kept_and_marked(world, caller, ingress):
    message = caller.message("end-of-call-report", endedReason="hangup")
    del message["call"]
    assert send(ingress, message).status_code == 200
    world.run_due()
    assert [event.outcome for event in world.read(InboxEvent)] == ["malformed"]


def test_report_is_processed_again_only_when_its_body_differs(caller, world, ingress):
    # Given a call in progress, and a report of ten seconds
    update = caller.message("status-update", status="in-progress")
    call_id = update["call"]["id"]
    assert send(ingress, update).json()["verdict"] == "new"
    ended = {"endedReason": "customer-ended-call"}
    first = caller.message("end-of-call-report", call_id, durationSeconds=10, **ended)
    assert [send(ingress, first).json()["verdict"] for _ in range(2)] == ["new", "duplicate"]
    world.run_due()
    assert world.wallet(caller.id).balance_micros == 900_000
    # When a second report for the same reason claims forty seconds
    second = caller.message("end-of-call-report", call_id, durationSeconds=40, **ended)
    assert send(ingress, second).json()["verdict"] == "new"
    world.run_due()
    # Then no money moves, and an alert is raised
    assert world.wallet(caller.id).balance_micros == 900_000
    (alert,) = [one for one in world.read(Alert) if one.kind == "call_differs"]
    assert alert.details["said_micros"] == 400_000
    assert len(world.read(InboxEvent)) == 3


def test_second_report_completes_the_cost_when_the_first_has_none(caller, world, ingress):
    update = caller.message("status-update", status="in-progress")
    send(ingress, update)
    for fields in ({}, {"durationSeconds": 33}):
        message = caller.message("end-of-call-report", update["call"]["id"], **fields)
        assert send(ingress, message).json()["verdict"] == "new"
        world.run_due()
    (call,) = caller.calls()
    assert (call.cost_micros, call.settled_by) == (330_000, "report")
    assert world.wallet(caller.id).balance_micros == 670_000


def signed(secret: str, body: bytes, at: int) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("unit", [1, 1000])
def test_configured_signature_is_required(caller, world, start_ingress, settings, unit):
    # Given a credential that signs
    changed = {"vapi_hmac_secret": "signs", "vapi_server_secret": ""}
    ingress = start_ingress(settings.model_validate({**settings.model_dump(), **changed}))
    body = json.dumps({"message": caller.message("status-update", status="queued")}).encode()
    at = int(time.time()) * unit

    def post(**headers: str) -> int:
        content = {"Content-Type": "application/json"}
        answer = ingress.client.post("/webhooks/vapi", content=body, headers=content | headers)
        return answer.status_code

    # Then only a signature of this body with a recent timestamp is accepted
    good = signed("signs", body, at)
    late = at - 400 * unit
    assert post() == 401
    assert post(**{"x-signature": good}) == 401
    assert post(**{"x-signature": signed("other", body, at), "x-timestamp": str(at)}) == 401
    assert post(**{"x-signature": signed("signs", body, late), "x-timestamp": str(late)}) == 401
    assert post(**{"x-signature": good, "x-timestamp": "soon"}) == 401
    assert world.read(InboxEvent) == []
    assert post(**{"x-signature": good, "x-timestamp": str(at)}) == 200


def test_both_secrets_are_accepted_during_a_rotation(caller, start_ingress, settings):
    changed = {"vapi_server_secret": "old, new"}
    ingress = start_ingress(settings.model_validate({**settings.model_dump(), **changed}))
    message = caller.message("hang")
    for secret, status in (("old", 200), ("new", 200), ("old, new", 401)):
        assert send(ingress, message, Authorization=f"Bearer {secret}").status_code == status
        sent = send(ingress, message, Authorization="", **{"X-Vapi-Secret": secret})
        assert sent.status_code == status


def test_message_is_refused_without_a_credential(caller, start_ingress, settings):
    changed = {"vapi_server_secret": ""}
    ingress = start_ingress(settings.model_validate({**settings.model_dump(), **changed}))
    assert send(ingress, caller.message("hang")).status_code == 401


def predial(caller) -> dict:
    return {
        "type": "campaign.predial",
        "campaignId": "campaign-1",
        "contact": {"id": "contact-1", "campaignId": "campaign-1", "number": "+15005550006"},
    }


def test_campaign_may_dial_while_its_organization_may_spend(caller, ingress):
    assert send(ingress, predial(caller)).json() == {"eligible": False}, "nobody's"
    caller.campaign("campaign-1")
    assert send(ingress, predial(caller)).json() == {"eligible": True}
    caller.world.do(
        lambda session, now: operator_actions.freeze_manually(
            session, caller.id, operator=Operator("me", "test"), now=now
        )
    )
    assert send(ingress, predial(caller)).json() == {"eligible": False}


def test_permission_holds_for_as_long_as_the_ingress_was_given(caller, start_ingress, settings):
    ingress = start_ingress(settings, permission_seconds=7.0)
    caller.campaign("campaign-1")
    assert send(ingress, predial(caller)).json() == {"eligible": True}
    (hold,) = caller.world.read(CallHold)
    assert (hold.expires_at - hold.created_at).total_seconds() == 7.0


@pytest.mark.skipif(not OF_VAPI.is_dir(), reason="the samples are not here")
@pytest.mark.parametrize(
    "sample", sorted(OF_VAPI.glob("*.json")) if OF_VAPI.is_dir() else [], ids=lambda p: p.stem
)
def test_every_sample_gets_a_defined_answer_and_a_defined_end(world, ingress, sample):
    # Given no organization at all
    answer = ingress.client.post(
        "/webhooks/vapi", content=sample.read_bytes(), headers=vapi_headers(ingress.sandbox)
    )
    # Then it is answered, and the processing of each stored message ends
    assert answer.status_code == 200
    kind = json.loads(sample.read_bytes())["message"]["type"]
    expected = {
        "assistant-request": {"error"},
        "campaign.predial": {"eligible"},
    }.get(kind, {"received", "verdict"})
    assert expected <= set(answer.json())
    assert all(outcome == "done" for _, outcome in world.run_due())
    assert all(event.outcome in ("ignored", "malformed") for event in world.read(InboxEvent))
