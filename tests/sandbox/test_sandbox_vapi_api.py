"""Vapi's API at the stand-in, as a company's backend uses it with its key."""

from __future__ import annotations

import pytest

from tests.sandbox.calling import api, end_leg, order, read_call, seen, wait_for_status


@pytest.fixture
def asked(number, assistant):
    return {
        "assistantId": assistant["id"],
        "phoneNumberId": number["id"],
        "customer": {"number": "+15005550009"},
        "assistantOverrides": {"maxDurationSeconds": 10, "metadata": {"call": "call_1"}},
    }


def test_call_is_created_by_the_api_and_runs(sandbox, listener, account, asked):
    # When a call is made with the key
    made = api(sandbox, "POST", "/call", asked | {"name": "First"})
    assert made.status_code == 201
    call = made.json()
    # Then it is shown as it was made
    assert call["status"] == "queued" and call["type"] == "outboundPhoneCall"
    assert call["name"] == "First" and call["customer"] == asked["customer"]
    for field in ("assistantId", "phoneNumberId", "assistantOverrides"):
        assert call[field] == asked[field]
    shown = wait_for_status(sandbox, call, "in-progress")
    # Then the shown fields are exactly those of the real API
    assert "metadata" not in shown and shown["startedAt"].endswith("Z")
    assert {"id", "orgId", "createdAt", "updatedAt", "monitor", "phoneCallProviderId"} <= set(shown)
    assert "endedAt" not in shown and "cost" not in shown
    assert seen(sandbox, call)["longest_seconds"] == 10
    # When its leg ends / Then the call ends too, and shows its cost
    end_leg(sandbox, call, account["sid"])
    ended = wait_for_status(sandbox, call, "ended")
    assert ended["endedReason"] == "customer-ended-call" and ended["endedAt"] and ended["cost"] >= 0
    assert listener.wait_for_message(call["id"], "end-of-call-report")
    assert listener.messages(kind="assistant-request") == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"metadata": {"a": 1}}, "property metadata should not exist"),
        ({"assistantOverrides": {"maxDurationSeconds": 9}}, "10 to 43200"),
        ({"assistantOverrides": {"maxDurationSeconds": 43_201}}, "10 to 43200"),
        ({"assistantOverrides": {"metadata": "x"}}, "must be an object"),
        ({"assistantOverrides": "x"}, "must be an object"),
        ({"customer": {"number": "5005550009"}}, "E.164"),
        ({"customer": None}, "E.164"),
        ({"name": "x" * 41}, "40 characters"),
        ({"phoneNumberId": "x"}, "Phone Number"),
        ({"assistantId": None}, "Assistant"),
    ],
)
def test_call_is_refused_when_vapi_would_refuse_it(sandbox, asked, change, why):
    answer = api(sandbox, "POST", "/call", asked | change)
    assert answer.status_code == 400 and why in answer.json()["message"]
    assert sandbox.control("GET", "/vapi/calls") == []


def test_assistants_maximum_duration_applies_without_overrides(sandbox, number, asked):
    short = sandbox.control("POST", "/vapi/assistants", {"max_duration_seconds": 30})
    del asked["assistantOverrides"]
    call = api(sandbox, "POST", "/call", asked | {"assistantId": short["id"]}).json()
    assert seen(sandbox, call)["longest_seconds"] == 30 and "assistantOverrides" not in call


def test_api_requires_the_key_except_at_the_control_url(sandbox, number, assistant, asked):
    call = api(sandbox, "POST", "/call", asked).json()
    for method, path in (
        ("POST", "/call"),
        ("GET", f"/call/{call['id']}"),
        ("GET", "/phone-number"),
        ("GET", f"/phone-number/{number['id']}"),
        ("GET", "/assistant"),
        ("GET", f"/assistant/{assistant['id']}"),
    ):
        headers = {"Authorization": "Bearer wrong"}
        refused = sandbox.http.request(method, f"/vapi{path}", headers=headers)
        assert refused.status_code == 401, path
    assert order(sandbox, call, type="end-call").is_success
    assert read_call(sandbox, call)["id"] == call["id"]


def test_numbers_and_assistants_are_listed_and_read(sandbox, number, assistant, account):
    assert api(sandbox, "GET", "/phone-number").json() == [number]
    assert api(sandbox, "GET", f"/phone-number/{number['id']}").json() == number
    assert number["twilioAccountSid"] == account["sid"] and "assistantId" not in number
    assert api(sandbox, "GET", "/assistant").json() == [assistant]
    assert api(sandbox, "GET", f"/assistant/{assistant['id']}").json() == assistant
    for path in ("/phone-number/x", "/assistant/x", "/call/x"):
        assert api(sandbox, "GET", path).status_code == 404
