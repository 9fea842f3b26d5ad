"""Inbound calls at Vapi's stand-in: its request, its time limit, the answer."""

from __future__ import annotations

import threading

import pytest

from base.clock import wait_until
from tests.sandbox.calling import (
    api,
    end_leg,
    notify_in,
    order,
    read_call,
    read_leg,
    seen,
    wait_for_status,
)
from tests.support.sandbox import SANDBOX_SECONDS, Reply


def admit(assistant: dict, longest: object = 60, **more: object) -> Reply:
    overrides = {"maxDurationSeconds": longest, "metadata": {"call": "call_1"}}
    return Reply({"assistantId": assistant["id"], "assistantOverrides": overrides, **more})


def test_inbound_call_gets_its_assistant_and_maximum_duration(
    sandbox, listener, number, account, assistant
):
    listener.replies["assistant-request"] = admit(assistant, 11)
    # When a caller dials a number without an assistant
    call = notify_in(sandbox, number, to="+15005550009")
    shown = wait_for_status(sandbox, call, "in-progress")
    # Then the request contains everything that identifies the organization
    (asked,) = listener.messages(call["id"], "assistant-request")
    sent = asked["phoneNumber"]
    assert (sent["id"], sent["number"]) == (number["id"], number["number"])
    assert sent["twilioAccountSid"] == account["sid"]
    assert asked["customer"] == {"number": "+15005550009"}
    assert asked["call"]["type"] == "inboundPhoneCall" and asked["call"]["status"] == "ringing"
    assert asked["call"]["phoneNumberId"] == number["id"]
    assert asked["call"]["phoneCallProviderId"] == call["phoneCallProviderId"]
    assert asked["call"]["monitor"]["controlUrl"].endswith(f"/call/{call['id']}/control")
    # Then the answer is applied, and shown where Vapi shows it
    assert shown["assistantId"] == assistant["id"] and "metadata" not in shown
    assert shown["assistantOverrides"] == {
        "maxDurationSeconds": 11,
        "metadata": {"call": "call_1"},
    }
    leg = read_leg(sandbox, call, account["sid"])
    assert (leg["status"], leg["direction"], leg["from"]) == (
        "in-progress",
        "inbound",
        "+15005550009",
    )
    decision = seen(sandbox, call)["decision"]
    assert decision["verdict"] == "admitted" and decision["status_code"] == 200
    assert decision["asked"] <= decision["answered"] <= seen(sandbox, call)["began"]
    assert seen(sandbox, call)["longest_seconds"] == 11
    # Then it goes on like any other call
    order(sandbox, call, type="end-call")
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert report["endedReason"] == "manually-canceled" and report["startedAt"]


PREFIX = "assistant-request-"
REFUSALS = {
    "an error that is spoken": (Reply({"error": "not enough credits"}), "returned-error"),
    "an error beside an assistant": (
        Reply({"error": "no", "assistant": {"name": "A"}}),
        "returned-error",
    ),
    "an error without words": (Reply({"error": {"code": 1}}), "returned-unspeakable-error"),
    "nothing": (Reply(), "failed"),
    "no JSON": (Reply(b"not enough credits"), "failed"),
    "a list": (Reply([1]), "failed"),
    "an outage": (Reply({"assistant": {"name": "A"}}, 503), "failed"),
    "an empty object": (Reply({}), "returned-no-assistant"),
    "a squad": (Reply({"squadId": "x"}), "returned-no-assistant"),
    "a number": (
        Reply({"destination": {"type": "number", "number": "+15005550007"}}),
        "returned-forwarding-phone-number",
    ),
    "an assistant that is not there": (Reply({"assistantId": "x"}), "returned-invalid-assistant"),
    "an assistant of words": (Reply({"assistant": "x"}), "returned-invalid-assistant"),
    "metadata that is no object": (
        Reply({"assistant": {"name": "A"}, "assistantOverrides": {"metadata": "x"}}),
        "returned-invalid-assistant",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_inbound_call_ends_when_the_answer_is_incomplete(sandbox, listener, number, account, name):
    reply, reason = REFUSALS[name]
    listener.replies["assistant-request"] = reply
    call = notify_in(sandbox, number)
    # Then it ends for the documented reason, was never started, and costs nothing
    shown = wait_for_status(sandbox, call, "ended")
    assert shown["endedReason"] == PREFIX + reason
    assert "startedAt" not in shown and shown["cost"] == 0
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert report["endedReason"] == PREFIX + reason and "startedAt" not in report
    (update,) = listener.messages(call["id"], "status-update")
    assert update["status"] == "ended" and "inboundPhoneCallDebuggingArtifacts" in update
    # Then the caller heard the error, if it could be spoken, and the leg is over
    spoken = [one["text"] for one in seen(sandbox, call)["spoken"]]
    expected = reply.body["error"] if reason == "returned-error" else None
    assert spoken == ([expected] if expected else [])
    decision = seen(sandbox, call)["decision"]
    assert (decision["verdict"], decision["reason"]) == ("refused", PREFIX + reason)
    assert read_leg(sandbox, call, account["sid"])["status"] == "completed"


@pytest.mark.parametrize(
    ("longest", "taken"),
    [(10, True), (43_200, True), (9, False), (43_201, False), (9.99, False), ("60", False)],
)
def test_maximum_duration_is_bounded(sandbox, listener, number, assistant, longest, taken):
    listener.replies["assistant-request"] = admit(assistant, longest)
    call = notify_in(sandbox, number)
    if taken:
        wait_for_status(sandbox, call, "in-progress")
        assert seen(sandbox, call)["longest_seconds"] == longest
    else:
        ended = wait_for_status(sandbox, call, "ended")
        assert ended["endedReason"] == PREFIX + "returned-invalid-assistant"


def test_late_answer_counts_as_none(sandbox, listener, number, assistant):
    # Given an ingress that answers too late / When a call waits half a second for it
    never = listener.replies["assistant-request"] = admit(assistant)
    never.wait = threading.Event()
    call = notify_in(sandbox, number, answer_limit_seconds=0.5)
    # Then it ends after that time, and not before
    assert wait_for_status(sandbox, call, "ended")["endedReason"] == PREFIX + "failed"
    decision = seen(sandbox, call)["decision"]
    assert 0.5 <= decision["answered"] - decision["asked"] < 1.5
    assert decision["error"] == "TimeoutError" and decision["status_code"] is None
    assert sandbox.control("GET", "/deliveries")[0]["error"] == "TimeoutError"
    # Then an answer after that has no effect
    never.wait.set()
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert "startedAt" not in report
    # Then a call without that setting would wait as long as Vapi does
    other = notify_in(sandbox, number)
    assert wait_until(lambda: seen(sandbox, other)["decision"] is not None, limit_seconds=5)
    assert seen(sandbox, other)["decision"]["limit_seconds"] == 7.5


def test_caller_is_not_connected_after_a_hang_up_before_the_answer(
    sandbox, listener, number, account, assistant
):
    reply = listener.replies["assistant-request"] = admit(assistant)
    reply.wait = threading.Event()
    call = notify_in(sandbox, number)
    listener.wait_for_message(call["id"], "assistant-request")
    # When the leg ends before the answer
    ended = end_leg(sandbox, call, account["sid"])
    assert wait_for_status(sandbox, call, "ended")["endedReason"] == "customer-ended-call"
    assert seen(sandbox, call)["ended"] - ended < 0.05
    # Then the answer has no effect, although it is shown
    reply.wait.set()
    assert wait_until(
        lambda: seen(sandbox, call)["decision"]["status_code"] == 200, limit_seconds=SANDBOX_SECONDS
    )
    shown = seen(sandbox, call)
    assert shown["decision"]["verdict"] == "not needed" and shown["began"] is None
    assert "assistantId" not in read_call(sandbox, call)


def test_number_with_its_own_assistant_sends_no_request(sandbox, listener, account, assistant):
    fixed = sandbox.control(
        "POST",
        "/vapi/numbers",
        {"number": "+15005550002", "twilio_sid": account["sid"], "assistant_id": assistant["id"]},
    )
    call = notify_in(sandbox, fixed, talk_seconds=0)
    # Then the conversation takes place without a request
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert report["startedAt"] and report["call"]["assistantId"] == assistant["id"]
    assert listener.messages(kind="assistant-request") == []
    assert seen(sandbox, call)["decision"] is None and seen(sandbox, call)["longest_seconds"] == 600
    assert api(sandbox, "GET", f"/phone-number/{fixed['id']}").json() == fixed


def test_messages_go_to_the_number_or_assistants_own_server(sandbox, listener, assistant):
    elsewhere = {"server_url": f"{listener.url}/elsewhere"}
    number = sandbox.control("POST", "/vapi/numbers", elsewhere)
    listener.replies["assistant-request"] = admit(assistant)
    call = notify_in(sandbox, number, talk_seconds=0)
    listener.wait_for_message(call["id"], "end-of-call-report")
    assert {one.path for one in listener.received} == {"/elsewhere"}
    # Then an assistant's own server takes precedence over the number's
    other = sandbox.control("POST", "/vapi/assistants", {"server_url": f"{listener.url}/third"})
    listener.replies["assistant-request"] = admit(other)
    call = notify_in(sandbox, number, talk_seconds=0)
    listener.wait_for_message(call["id"], "end-of-call-report")
    sent = [one for one in listener.received if one.message()["call"]["id"] == call["id"]]
    paths = {one.message()["type"]: one.path for one in sent}
    assert paths["assistant-request"] == "/elsewhere"
    assert paths["status-update"] == paths["end-of-call-report"] == "/third"


def test_inbound_call_is_refused_without_a_known_number(sandbox):
    sandbox.control("POST", "/vapi/calls", {"direction": "inbound"}, code=422)
    asked = {"direction": "inbound", "number_id": "x"}
    sandbox.control("POST", "/vapi/calls", asked, code=404)
    sandbox.control("POST", "/vapi/numbers", {"twilio_sid": "ACx"}, code=404)
    sandbox.control("POST", "/vapi/numbers", {"assistant_id": "x"}, code=404)
