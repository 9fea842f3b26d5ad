"""Calls that live in a subaccount: listed on however many pages, ended by the parent's word."""

from __future__ import annotations

import pytest

from base.outcomes import OutcomeUnknown, ProviderUnavailable, Refused
from providers.twilio import api as twilio_api
from providers.twilio.api import TwilioApi
from tests.providers.support import Loopback
from tests.providers.twilio.test_api import PARENT, SID, error
from tests.running_sandbox import House

CALL = "CA" + "0" * 32


@pytest.fixture
def api(sandbox: House):
    known = sandbox.info["twilio"]
    made = TwilioApi(known["account_sid"], known["auth_token"], known["base_url"], window_seconds=5)
    yield made
    made.close()


def ring(sandbox: House, sid: str, count: int = 1, **more) -> list[str]:
    return [
        sandbox.control("POST", "/twilio/calls", {"sid": sid, **more})["sid"] for _ in range(count)
    ]


@pytest.fixture
def subaccount(sandbox: House) -> str:
    return sandbox.control("POST", "/twilio/subaccounts", {})["sid"]


def test_every_living_call_is_listed_on_however_many_pages(api, sandbox, subaccount, monkeypatch):
    monkeypatch.setattr(twilio_api, "_PAGE_SIZE", 2)
    living = ring(sandbox, subaccount, 5)
    assert sorted(api.live_calls(subaccount)) == sorted(living)


def test_a_call_is_ended_once_and_is_no_longer_listed(api, sandbox, subaccount):
    (call_sid,) = ring(sandbox, subaccount)
    assert api.complete_call(subaccount, call_sid)
    assert not api.complete_call(subaccount, call_sid)
    assert api.live_calls(subaccount) == []


def test_a_suspended_subaccounts_calls_are_ended_all_the_same(api, sandbox, subaccount):
    (call_sid,) = ring(sandbox, subaccount)
    sandbox.control("POST", f"/twilio/subaccounts/{subaccount}", {"status": "suspended"})
    assert api.live_calls(subaccount) == [call_sid]
    assert api.complete_call(subaccount, call_sid)


def test_a_call_of_another_account_is_missing(api, sandbox, subaccount):
    with pytest.raises(Refused) as refused:
        api.complete_call(subaccount, CALL)
    assert refused.value.code == "CALL_MISSING"


def test_a_list_that_breaks_off_is_no_list(api, sandbox, subaccount, monkeypatch):
    monkeypatch.setattr(twilio_api, "_PAGE_SIZE", 2)
    ring(sandbox, subaccount, 5)
    sandbox.fault("twilio", "status", status=503, match={"path_contains": "/Calls.json"})
    with pytest.raises(ProviderUnavailable):
        api.live_calls(subaccount)


@pytest.mark.parametrize(("sid", "call_sid"), [("AC1", CALL), (SID, "CA1"), (SID, "../x")])
def test_ids_that_are_none_are_not_asked_about(sid, call_sid, loopback: Loopback):
    built = TwilioApi(PARENT, "token", loopback.url)
    with pytest.raises(Refused):
        built.complete_call(sid, call_sid)
    assert loopback.asked == []


def test_a_lost_answer_to_an_ending_may_have_ended_it(loopback: Loopback):
    loopback.answer = lambda asked: None
    built = TwilioApi(PARENT, "token", loopback.url, window_seconds=2)
    with pytest.raises(OutcomeUnknown):
        built.complete_call(SID, CALL)
    assert len(loopback.asked) == 1


@pytest.mark.parametrize(("code", "status"), [(20003, 401), (20005, 403), (20500, 500)])
def test_a_list_that_is_refused_is_no_list_either(loopback: Loopback, code, status):
    # The SDK keeps no status of a page that it cannot have: it is asked again, whatever the reason.
    loopback.answer = lambda asked: error(code, status)
    built = TwilioApi(PARENT, "token", loopback.url, window_seconds=2)
    with pytest.raises(ProviderUnavailable):
        built.live_calls(SID)
