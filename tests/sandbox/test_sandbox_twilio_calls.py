"""Twilio's stand-in: lists of several pages, and callbacks for a call's changes."""

from __future__ import annotations

from urllib.parse import parse_qsl

from twilio.request_validator import RequestValidator

from base.clock import wait_until
from tests.sandbox.calling import end_leg, notify_in, parent, read_leg, start_call, wait_for_status
from tests.support.sandbox import SANDBOX_SECONDS

PUBLIC = "https://hooks.holdfast.example/webhooks/twilio"


def path_of(account) -> str:
    return f"/twilio/2010-04-01/Accounts/{account['sid']}/Calls.json"


def list_calls(sandbox, account, **query: object) -> dict:
    return sandbox.http.get(path_of(account), params=query, auth=parent(sandbox)).json()


def follow(sandbox, uri: str) -> dict:
    return sandbox.http.get(f"/twilio{uri}", auth=parent(sandbox)).json()


def sids(page: dict) -> list[str]:
    return [one["sid"] for one in page["calls"]]


def test_list_of_calls_has_a_second_page(sandbox, account):
    # Given sixty calls, of which five are over
    made = [sandbox.control("POST", "/twilio/calls", {"sid": account["sid"]}) for _ in range(60)]
    for one in made[::12]:
        end_leg(sandbox, {"phoneCallProviderId": one["sid"]}, account["sid"])
    running = [one["sid"] for one in reversed(made) if one not in made[::12]]
    # When they are listed by status / Then fifty are listed, newest first, with a link to the rest
    first = list_calls(sandbox, account, Status="in-progress")
    assert sids(first) == running[:50] and first["page_size"] == 50
    second = follow(sandbox, first["next_page_uri"])
    assert sids(second) == running[50:] and second["next_page_uri"] is None
    assert (second["page"], second["start"], second["end"]) == (1, 50, 54)
    # Then the page size may be chosen, up to a thousand
    assert sids(list_calls(sandbox, account, Status="in-progress", PageSize=1000)) == running
    assert len(sids(list_calls(sandbox, account, PageSize=5000))) == 60
    assert list_calls(sandbox, account, PageSize=5000)["page_size"] == 1000
    assert list_calls(sandbox, account, PageSize=60)["next_page_uri"] is None
    assert sids(list_calls(sandbox, account, To="+15005550000")) == []


def test_pages_list_every_call_when_calls_end_between_them(sandbox, account):
    made = [sandbox.control("POST", "/twilio/calls", {"sid": account["sid"]}) for _ in range(6)]
    first = list_calls(sandbox, account, Status="in-progress", PageSize=2)
    # When the calls of the first page end, and another begins, before the second page is requested
    for sid in sids(first):
        end_leg(sandbox, {"phoneCallProviderId": sid}, account["sid"])
    sandbox.control("POST", "/twilio/calls", {"sid": account["sid"]})
    # Then the other four are listed, each once
    second = follow(sandbox, first["next_page_uri"])
    third = follow(sandbox, second["next_page_uri"])
    found = sids(second) + sids(third)
    assert found == [one["sid"] for one in reversed(made[:4])] and third["next_page_uri"] is None


def test_canceled_ends_only_an_unanswered_leg(sandbox, account):
    talking = sandbox.control("POST", "/twilio/calls", {"sid": account["sid"]})
    ringing = sandbox.control("POST", "/twilio/calls", {"sid": account["sid"], "status": "ringing"})
    for one in (talking, ringing):
        end_leg(sandbox, {"phoneCallProviderId": one["sid"]}, account["sid"], "canceled")
    assert sids(list_calls(sandbox, account, Status="in-progress")) == [talking["sid"]]
    (canceled,) = list_calls(sandbox, account, Status="canceled")["calls"]
    assert canceled["sid"] == ringing["sid"] and canceled["start_time"] is None


def forms(listener) -> list[dict]:
    requests = [one for one in list(listener.received) if one.path == "/webhooks/twilio"]
    return [dict(parse_qsl(one.body.decode(), keep_blank_values=True)) for one in requests]


def test_status_callback_of_a_leg_is_sent_only_if_requested(sandbox, listener, account, assistant):
    silent = sandbox.control("POST", "/vapi/numbers", {"twilio_sid": account["sid"]})
    asked = {
        "number": "+15005550002",
        "twilio_sid": account["sid"],
        "assistant_id": assistant["id"],
        "leg_callback_url": PUBLIC,
    }
    telling = sandbox.control("POST", "/vapi/numbers", asked)
    # When calls of a number without a callback, and of one with a callback, are over
    start_call(sandbox, number_id=silent["id"], talk_seconds=0, deliver=False)
    call = notify_in(sandbox, telling, deliver=False)
    wait_for_status(sandbox, call, "in-progress")
    end_leg(sandbox, call, account["sid"])
    # Then the second call's changes were reported, each once, in Twilio's form
    assert wait_until(lambda: len(forms(listener)) == 2, limit_seconds=SANDBOX_SECONDS)
    by_status = {one["CallStatus"]: one for one in forms(listener)}
    assert by_status.keys() == {"in-progress", "completed"}
    done = by_status["completed"]
    assert (done["CallSid"], done["AccountSid"]) == (call["phoneCallProviderId"], account["sid"])
    assert (done["Direction"], done["From"], done["To"]) == (
        "inbound",
        "+15005550006",
        "+15005550002",
    )
    assert (done["CallDuration"], done["Duration"], done["ToZip"]) == ("0", "0", "")
    assert [by_status[one]["SequenceNumber"] for one in ("in-progress", "completed")] == ["0", "1"]
    assert "CallDuration" not in by_status["in-progress"]
    # Then each is signed with the subaccount's own token
    validator = RequestValidator(account["auth_token"])
    for one, form in zip(listener.received, forms(listener), strict=True):
        assert validator.validate(PUBLIC, form, one.headers["X-Twilio-Signature"])


def test_ended_leg_keeps_its_final_status(sandbox, listener, account):
    # Given a call that rings for long / When its leg is completed before an answer
    call = start_call(sandbox, twilio_sid=account["sid"], ring_seconds=60, leg_callback_url="")
    wait_for_status(sandbox, call, "ringing")
    end_leg(sandbox, call, account["sid"])
    # Then the call's own end does not change that, and it is reported once
    assert "startedAt" not in wait_for_status(sandbox, call, "ended")
    assert read_leg(sandbox, call, account["sid"])["status"] == "completed"
    listener.wait_for_message(call["id"], "end-of-call-report")
    assert sorted(one["CallStatus"] for one in forms(listener)) == ["completed", "ringing"]


def test_twilio_call_without_vapi_sends_callbacks(sandbox, listener, account):
    asked = {"sid": account["sid"], "callback_url": "", "status": "ringing"}
    call = sandbox.control("POST", "/twilio/calls", asked)
    end_leg(sandbox, {"phoneCallProviderId": call["sid"]}, account["sid"])
    assert wait_until(lambda: len(forms(listener)) == 1, limit_seconds=SANDBOX_SECONDS)
    assert forms(listener)[0]["CallStatus"] == "completed"
