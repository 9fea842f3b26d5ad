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
    ("told", "reason"),
    [
        ({"type": "end-call"}, "manually-canceled"),
        (
            {"type": "say", "content": "Good bye", "endCallAfterSpoken": True},
            "assistant-said-message-with-end-call-enabled",
        ),
    ],
)
def test_call_continues_until_its_control_url_ends_it(house, listener, told, reason):
    # Given a call in progress, whose customer would talk for long
    call = start_call(house, talk_seconds=60)
    wait_for_status(house, call, "in-progress")
    # When its control address is ordered to end it
    assert order(house, call, **told).is_success
    wait_for_status(house, call, "ended")
    # Then all messages were sent, the report names its sender, and it cannot be ended again
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    updates = listener.messages(call["id"], "status-update")
    assert {one["status"] for one in updates} == {"ringing", "in-progress", "ended"}
    assert report["endedReason"] == reason and report["durationSeconds"] > 0
    overrides = report["call"]["assistantOverrides"]
    assert overrides == {"metadata": {"organization_id": "org_a"}, "maxDurationSeconds": 600}
    secret = house.info["vapi"]["server_secret"]
    assert {one.headers["Authorization"] for one in listener.heard} == {f"Bearer {secret}"}
    assert order(house, call, **told).status_code == 404
    # Then the orders and the speech are shown with their times
    shown = seen(house, call)
    assert [(one["type"], one["obeyed"]) for one in shown["orders"]] == [(told["type"], True)]
    assert shown["control_messages"] == 1
    for speech in shown["spoken"]:
        assert speech["text"] == "Good bye"
        # Speaking "Good bye" takes a tenth of a second.
        assert shown["began"] < speech["began"] <= speech["finished"] - 0.1 < shown["ended"]
    assert shown["seconds"] == shown["ended"] - shown["began"]


def test_call_of_a_campaign_has_the_campaigns_id(house, listener):
    call = start_call(house, campaign_id="campaign-1", talk_seconds=0)
    assert read_call(house, call)["campaignId"] == "campaign-1"
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert report["call"]["campaignId"] == "campaign-1"


def test_speech_is_unfinished_when_the_call_ends_during_it(house, listener):
    call = start_call(house)
    wait_for_status(house, call, "in-progress")
    # When it is ordered to speak and, after that, to speak for long and then end
    order(house, call, type="say", content="one minute left")
    assert wait_until(
        lambda: seen(house, call)["spoken"][0]["finished"] is not None,
        limit_seconds=SANDBOX_SECONDS,
    )
    assert read_call(house, call)["status"] == "in-progress"
    order(house, call, type="say", content="word " * 100, endCallAfterSpoken=True)
    # Then a hang-up in the middle leaves the speech unfinished
    house.control("POST", f"/vapi/calls/{call['id']}/end", {})
    assert wait_for_status(house, call, "ended")["endedReason"] == "customer-ended-call"
    first, second = seen(house, call)["spoken"]
    assert first["text"] == "one minute left" and second["finished"] is None
    assert order(house, call, type="dance").status_code == 404


def test_control_url_refuses_unknown_orders(house):
    call = start_call(house, deliver=False)
    assert order(house, call, type="dance").status_code == 400
    assert order(house, call, type="add-message", message={}).is_success
    assert seen(house, call)["control_messages"] == 1


def test_call_ends_at_its_maximum_unanswered_or_with_its_leg(house, listener, account):
    long = start_call(house, max_duration_seconds=0.2)
    lost = start_call(house, answered=False, twilio_sid=account["sid"])
    legged = start_call(house, twilio_sid=account["sid"])
    wait_for_status(house, legged, "in-progress")
    # When the leg is completed at Twilio
    assert read_leg(house, legged, account["sid"])["status"] == "in-progress"
    completed = end_leg(house, legged, account["sid"])
    # Then each ends for its own reason
    ends = {}
    for name, call in {"long": long, "lost": lost, "legged": legged}.items():
        ends[name] = wait_for_status(house, call, "ended")["endedReason"]
    assert ends == {
        "long": "exceeded-max-duration",
        "lost": "customer-did-not-answer",
        "legged": "customer-ended-call",
    }
    assert "startedAt" not in read_call(house, lost)
    # Then the leg's call ended at once, and no leg outlives its call
    assert seen(house, legged)["ended"] - completed < 0.05
    assert read_leg(house, lost, account["sid"])["status"] == "no-answer"
    assert 0.2 <= seen(house, long)["seconds"] < 0.4


def test_twilio_leg_ends_when_vapi_ends_the_call(house, number, account, assistant):
    call = start_call(house, number_id=number["id"], assistant_id=assistant["id"], deliver=False)
    wait_for_status(house, call, "in-progress")
    leg = read_leg(house, call, account["sid"])
    assert (leg["status"], leg["from"], leg["to"], leg["direction"]) == (
        "in-progress",
        number["number"],
        "+15005550006",
        "outbound-api",
    )
    order(house, call, type="end-call")
    wait_for_status(house, call, "ended")
    leg = read_leg(house, call, account["sid"])
    assert leg["status"] == "completed" and leg["duration"] == "0" and leg["end_time"]


def test_suspended_subaccount_carries_no_new_call(house, listener, number, account):
    house.control("POST", f"/twilio/subaccounts/{account['sid']}", {"status": "suspended"})
    # When a call is begun / Then it fails before any phone rings, and leaves no leg
    call = start_call(house, number_id=number["id"])
    (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
    assert report["endedReason"] == "twilio-failed-to-connect-call" and report["cost"] == 0
    assert [one["status"] for one in listener.messages(call["id"], "status-update")] == ["ended"]
    assert seen(house, call)["leg"] is None
    # When a caller dials in / Then Twilio rejects the call
    asked = {"direction": "inbound", "number_id": number["id"]}
    house.control("POST", "/vapi/calls", asked, code=409)
    assert listener.messages(kind="assistant-request") == []


def test_reset_forgets_calls_numbers_and_behaviour(house, listener, number, assistant):
    call = start_call(house, number_id=number["id"], queued_seconds=0, talk_seconds=0.5)
    listener.wait_for_message(call["id"], "status-update", 2)
    house.control("POST", "/vapi/behaviour", {"deaf": True})
    house.control("POST", "/vapi/authentication", {"mode": "none"})
    # When all is reset
    house.control("POST", "/reset")
    # Then nothing of it is known, and the next messages received are the next call's
    assert api(house, "GET", f"/call/{call['id']}").status_code == 404
    assert house.control("GET", "/vapi/calls") == []
    assert api(house, "GET", "/phone-number").json() == []
    assert api(house, "GET", "/assistant").json() == []
    assert house.control("GET", "/vapi/behaviour")["deaf"] is False
    other = start_call(house, talk_seconds=1)
    listener.wait_for_message(other["id"], "end-of-call-report")
    told = listener.messages(call["id"], "status-update")
    assert [one["status"] for one in told] == ["ringing", "in-progress"]
    assert "Authorization" in listener.heard[-1].headers
