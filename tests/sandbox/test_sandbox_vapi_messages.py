"""Messages of Vapi's stand-in: their types, their credentials, and their answers."""

from __future__ import annotations

import hashlib
import hmac
import time

import pytest

from tests.sandbox.calling import start_call, wait_for_status
from tests.support.sandbox import Reply

#: Fields that each type's model requires, besides the type.
REQUIRED = {
    "assistant-request": [],
    "assistant.speechStarted": ["text"],
    "assistant.started": [],
    "call.artifact.upload": [],
    "call.delete.failed": [],
    "call.deleted": [],
    "call.endpointing.request": [],
    "campaign.predial": ["campaignId", "contact"],
    "chat.created": ["chat"],
    "chat.deleted": ["chat"],
    "conversation-update": ["messagesOpenAIFormatted"],
    "end-of-call-report": ["endedReason", "artifact", "analysis"],
    "handoff-destination-request": ["parameters"],
    "hang": [],
    "knowledge-base-request": ["messagesOpenAIFormatted"],
    "language-change-detected": ["language"],
    "model-output": ["output"],
    "phone-call-control": ["request"],
    "session.created": ["session"],
    "session.deleted": ["session"],
    "session.updated": ["session"],
    "speech-update": ["status", "role"],
    "status-update": ["status"],
    "tool-calls": ["toolCallList", "toolWithToolCallList"],
    "transcript": ["role", "transcriptType", "transcript"],
    "transfer-destination-request": [],
    "transfer-update": [],
    "user-interrupted": [],
    "voice-input": ["input"],
    "voice-request": ["text", "sampleRate"],
    "a.type.of.tomorrow": [],
}


def send(sandbox, kind: str, **more: object) -> list[dict]:
    return sandbox.control("POST", "/vapi/messages", {"type": kind, **more})


def test_message_of_every_type_has_the_required_fields(sandbox, listener):
    call = start_call(sandbox, deliver=False, talk_seconds=0)
    wait_for_status(sandbox, call, "ended")
    for kind, required in REQUIRED.items():
        # When it is sent without a call, and about one with an additional field
        send(sandbox, kind)
        send(sandbox, kind, call_id=call["id"], fields={"novel": 1})
        # Then both are complete
        bare, about = listener.messages(kind=kind)
        for message in (bare, about):
            assert set(required) <= message.keys() and isinstance(message["timestamp"], int)
        assert "call" not in bare and about["call"]["id"] == call["id"] and about["novel"] == 1
        assert about["customer"] == {"number": "+15005550006"}
    contact = listener.messages(kind="campaign.predial")[0]["contact"]
    assert {"id", "campaignId", "orgId", "number", "createdAt"} <= contact.keys()
    (asked,) = listener.messages(kind="tool-calls")[0]["toolCallList"]
    assert asked["id"] and asked["function"]["name"]


def test_lost_message_is_not_sent_again(sandbox, listener):
    # Given an ingress that refuses / When a message is sent / Then it is sent once
    listener.answers = [500]
    sent = send(sandbox, "assistant-request", fields={"a": 1})
    assert sent[0]["status_code"] == 500
    send(sandbox, "hang")
    assert [one["type"] for one in listener.messages()] == ["assistant-request", "hang"]
    assert len(sandbox.control("GET", "/deliveries")) == 2
    # When a repeat is requested / Then it is sent again
    listener.answers = [500]
    send(sandbox, "hang", retry=True)
    listener.wait_for_message("", "hang", 3)
    # Then by that time the first one would also have been repeated
    assert len(listener.messages(kind="assistant-request")) == 1


def test_refused_message_of_a_call_is_not_sent_again(sandbox, listener):
    # Given an ingress that refuses all messages of a call
    listener.answers = [500] * 4
    call = start_call(sandbox, talk_seconds=0)
    listener.wait_for_message(call["id"], "end-of-call-report")
    # When a second later another call is over / Then no message of the first was repeated
    other = start_call(sandbox, talk_seconds=0, report_after_seconds=1)
    listener.wait_for_message(other["id"], "end-of-call-report")
    assert len(listener.messages(call["id"])) == 4


def test_report_cannot_be_sent_for_a_live_call(sandbox):
    call = start_call(sandbox, deliver=False)
    asked = {"type": "end-of-call-report", "call_id": call["id"]}
    sandbox.control("POST", "/vapi/messages", asked, code=422)
    sandbox.control("POST", "/vapi/messages", {"type": "hang", "call_id": "x"}, code=404)


@pytest.mark.parametrize(
    ("reply", "eligible"),
    [
        (Reply({"eligible": True}), True),
        (Reply({"eligible": False}), False),
        (Reply({"eligible": "true"}), False),
        (Reply({"eligible": 1}), False),
        (Reply({}), False),
        (Reply([True]), False),
        (Reply(b"true"), False),
        (Reply(), False),
        (Reply({"eligible": True}, 500), False),
    ],
)
def test_contact_is_dialled_only_when_the_answer_is_eligible(sandbox, listener, reply, eligible):
    listener.replies["campaign.predial"] = reply
    (sent,) = send(sandbox, "campaign.predial", fields={"campaignId": "c1"})
    assert sent["eligible"] is eligible
    # Then the journal of deliveries shows it too, and an unreachable ingress means no
    assert sandbox.control("GET", "/deliveries")[-1]["eligible"] is eligible
    sandbox.control("POST", "/target", {"url": "http://127.0.0.1:9"})
    assert send(sandbox, "campaign.predial")[0]["eligible"] is False


def prove(sandbox, mode: str, **more: object) -> None:
    sandbox.control("POST", "/vapi/authentication", {"mode": mode, **more})


def test_messages_carry_each_documented_kind_of_credential(sandbox, listener):
    known = sandbox.info["vapi"]
    for mode, proof in {
        "bearer": {"Authorization": f"Bearer {known['server_secret']}"},
        "x-vapi-secret": {"X-Vapi-Secret": known["server_secret"]},
        "none": {},
    }.items():
        prove(sandbox, mode)
        send(sandbox, "hang")
        headers = listener.received[-1].headers
        named = ("Authorization", "X-Vapi-Secret", "x-signature", "x-timestamp")
        assert {name: headers[name] for name in named if name in headers} == proof
    # When it is forged / Then it is another secret
    prove(sandbox, "bearer")
    send(sandbox, "hang", forge="credential")
    assert listener.received[-1].headers["Authorization"] == "Bearer not the secret"


def signed(sandbox, request, algorithm: str = "sha256") -> bool:
    secret = sandbox.info["vapi"]["hmac_secret"].encode()
    text = request.headers["x-timestamp"].encode() + b"." + request.body
    digest = hmac.new(secret, text, getattr(hashlib, algorithm)).hexdigest()
    return hmac.compare_digest(digest, request.headers["x-signature"])


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1"])
@pytest.mark.parametrize(("unit", "in_a_second"), [("ms", 1000), ("seconds", 1)])
def test_signature_covers_the_timestamp_and_the_body(
    sandbox, listener, algorithm, unit, in_a_second
):
    prove(sandbox, "hmac", algorithm=algorithm, timestamp_unit=unit)
    send(sandbox, "hang")
    request = listener.received[-1]
    assert signed(sandbox, request, algorithm) and "Authorization" not in request.headers
    assert abs(int(request.headers["x-timestamp"]) / in_a_second - time.time()) < 5
    # When it is forged / Then it is not valid, or an hour old
    for forge in ("credential", "body"):
        send(sandbox, "hang", forge=forge)
        assert not signed(sandbox, listener.received[-1], algorithm)
        assert listener.received[-1].message()["type"] == "hang"
    send(sandbox, "hang", forge="stale")
    assert signed(sandbox, listener.received[-1], algorithm)
    assert int(listener.received[-1].headers["x-timestamp"]) / in_a_second < time.time() - 3500


@pytest.mark.parametrize(
    ("mode", "is_used"), [("bearer", False), ("x-vapi-secret", False), ("hmac", True)]
)
def test_info_shows_whether_messages_are_signed(sandbox, mode, is_used):
    prove(sandbox, mode)
    shown = sandbox.control("GET", "/info")["vapi"]
    assert (shown["authentication"], shown["hmac_secret_is_used"]) == (mode, is_used)
