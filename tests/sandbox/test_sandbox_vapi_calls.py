"""Vapi's stand-in: live calls, how each may end, and what is reported of them."""

from __future__ import annotations

import pytest

from base.clock import wait_until
from tests.sandbox.calling import (
    api,
    end_leg,
    order,
    read_call,
    read_leg,
    seen,
    start_call,
    wait_for_status,
)
from tests.support.sandbox import SANDBOX_SECONDS


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"type": "end-call"}, "manually-canceled"),
        (
            {"type": "say", "content": "Good bye", "endCallAfterSpoken": True},
            "assistant-said-message-with-end-call-enabled",
        ),
    ],
)
def test_call_continues_until_its_control_url_ends_it(sandbox, listener, sent, reason):
    # Given a call in progress, whose customer would talk for long
    call = start_call(sandbox, talk_seconds=60)
    wait_for_status(sandbox, call, "in-progress")
    # When its control URL is ordered to end it
    assert order(sandbox, call, **sent).is_success
    wait_for_status(sandbox, call, "ended")
    # Then all messages were sent, the report names its sender, and it cannot be ended again
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    updates = listener.messages(call["id"], "status-update")
    assert {one["status"] for one in updates} == {"ringing", "in-progress", "ended"}
    assert report["endedReason"] == reason and report["durationSeconds"] > 0
    overrides = report["call"]["assistantOverrides"]
    assert overrides == {"metadata": {"organization_id": "org_a"}, "maxDurationSeconds": 600}
    secret = sandbox.info["vapi"]["server_secret"]
    assert {one.headers["Authorization"] for one in listener.received} == {f"Bearer {secret}"}
    assert order(sandbox, call, **sent).status_code == 404
    # Then the orders and the speech are shown with their times
    shown = seen(sandbox, call)
    assert [(one["type"], one["obeyed"]) for one in shown["orders"]] == [(sent["type"], True)]
    assert shown["control_messages"] == 1
    for speech in shown["spoken"]:
        assert speech["text"] == "Good bye"
        # Speaking "Good bye" takes a tenth of a second.
        assert shown["began"] < speech["began"] <= speech["finished"] - 0.1 < shown["ended"]
    assert shown["seconds"] == shown["ended"] - shown["began"]


def test_call_of_a_campaign_has_the_campaigns_id(sandbox, listener):
    call = start_call(sandbox, campaign_id="campaign-1", talk_seconds=0)
    assert read_call(sandbox, call)["campaignId"] == "campaign-1"
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert report["call"]["campaignId"] == "campaign-1"


def test_speech_is_unfinished_when_the_call_ends_during_it(sandbox, listener):
    call = start_call(sandbox)
    wait_for_status(sandbox, call, "in-progress")
    # When it is ordered to speak and, after that, to speak for long and then end
    order(sandbox, call, type="say", content="one minute left")
    assert wait_until(
        lambda: seen(sandbox, call)["spoken"][0]["finished"] is not None,
        limit_seconds=SANDBOX_SECONDS,
    )
    assert read_call(sandbox, call)["status"] == "in-progress"
    order(sandbox, call, type="say", content="word " * 100, endCallAfterSpoken=True)
    # Then a hang-up in the middle leaves the speech unfinished
    sandbox.control("POST", f"/vapi/calls/{call['id']}/end", {})
    assert wait_for_status(sandbox, call, "ended")["endedReason"] == "customer-ended-call"
    first, second = seen(sandbox, call)["spoken"]
    assert first["text"] == "one minute left" and second["finished"] is None
    assert order(sandbox, call, type="dance").status_code == 404


def test_control_url_refuses_unknown_orders(sandbox):
    call = start_call(sandbox, deliver=False)
    assert order(sandbox, call, type="dance").status_code == 400
    assert order(sandbox, call, type="add-message", message={}).is_success
    assert seen(sandbox, call)["control_messages"] == 1


def test_call_ends_at_its_maximum_unanswered_or_with_its_leg(sandbox, listener, account):
    long = start_call(sandbox, max_duration_seconds=0.2)
    lost = start_call(sandbox, answered=False, twilio_sid=account["sid"])
    legged = start_call(sandbox, twilio_sid=account["sid"])
    wait_for_status(sandbox, legged, "in-progress")
    # When the leg is completed at Twilio
    assert read_leg(sandbox, legged, account["sid"])["status"] == "in-progress"
    completed = end_leg(sandbox, legged, account["sid"])
    # Then each ends for its own reason
    ends = {}
    for name, call in {"long": long, "lost": lost, "legged": legged}.items():
        ends[name] = wait_for_status(sandbox, call, "ended")["endedReason"]
    assert ends == {
        "long": "exceeded-max-duration",
        "lost": "customer-did-not-answer",
        "legged": "customer-ended-call",
    }
    assert "startedAt" not in read_call(sandbox, lost)
    # Then the leg's call ended at once, and no leg outlives its call
    assert seen(sandbox, legged)["ended"] - completed < 0.05
    assert read_leg(sandbox, lost, account["sid"])["status"] == "no-answer"
    assert 0.2 <= seen(sandbox, long)["seconds"] < 0.4


def test_twilio_leg_ends_when_vapi_ends_the_call(sandbox, number, account, assistant):
    call = start_call(sandbox, number_id=number["id"], assistant_id=assistant["id"], deliver=False)
    wait_for_status(sandbox, call, "in-progress")
    leg = read_leg(sandbox, call, account["sid"])
    assert (leg["status"], leg["from"], leg["to"], leg["direction"]) == (
        "in-progress",
        number["number"],
        "+15005550006",
        "outbound-api",
    )
    order(sandbox, call, type="end-call")
    wait_for_status(sandbox, call, "ended")
    leg = read_leg(sandbox, call, account["sid"])
    assert leg["status"] == "completed" and leg["duration"] == "0" and leg["end_time"]


def test_suspended_subaccount_carries_no_new_call(sandbox, listener, number, account):
    sandbox.control("POST", f"/twilio/subaccounts/{account['sid']}", {"status": "suspended"})
    # When a call is begun / Then it fails before any phone rings, and leaves no leg
    call = start_call(sandbox, number_id=number["id"])
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert report["endedReason"] == "twilio-failed-to-connect-call" and report["cost"] == 0
    assert [one["status"] for one in listener.messages(call["id"], "status-update")] == ["ended"]
    assert seen(sandbox, call)["leg"] is None
    # When a caller dials in / Then Twilio rejects the call
    asked = {"direction": "inbound", "number_id": number["id"]}
    sandbox.control("POST", "/vapi/calls", asked, code=409)
    assert listener.messages(kind="assistant-request") == []


def test_reset_forgets_calls_numbers_and_behaviour(sandbox, listener, number, assistant):
    call = start_call(sandbox, number_id=number["id"], queued_seconds=0, talk_seconds=0.5)
    listener.wait_for_message(call["id"], "status-update", 2)
    sandbox.control("POST", "/vapi/behaviour", {"deaf": True})
    sandbox.control("POST", "/vapi/authentication", {"mode": "none"})
    # When all is reset
    sandbox.control("POST", "/reset")
    # Then nothing of it is known, and the next messages received are the next call's
    assert api(sandbox, "GET", f"/call/{call['id']}").status_code == 404
    assert sandbox.control("GET", "/vapi/calls") == []
    assert api(sandbox, "GET", "/phone-number").json() == []
    assert api(sandbox, "GET", "/assistant").json() == []
    assert sandbox.control("GET", "/vapi/behaviour")["deaf"] is False
    other = start_call(sandbox, talk_seconds=1)
    listener.wait_for_message(other["id"], "end-of-call-report")
    sent = listener.messages(call["id"], "status-update")
    assert [one["status"] for one in sent] == ["ringing", "in-progress"]
    assert "Authorization" in listener.received[-1].headers
