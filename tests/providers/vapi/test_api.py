"""Vapi's API: a call asked about, and orders sent only to Vapi's own addresses, once."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from base.enums import CallStatus
from base.outcomes import OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected
from providers.vapi.api import VapiApi
from tests.providers.support import Loopback, Reply

CALL_ID = str(uuid4())


@pytest.fixture
def api(loopback: Loopback):
    made = VapiApi("key", loopback.url, window_seconds=2)
    yield made
    made.close()


def answer(**call) -> Reply:
    return Reply(200, json.dumps({"id": CALL_ID, "status": "in-progress", **call}).encode())


def test_a_call_is_read_with_where_it_is_controlled(api, loopback):
    loopback.answer = lambda asked: answer(monitor={"controlUrl": f"{loopback.url}/c"})
    found = api.get_call(CALL_ID)
    assert (found.facts.status, found.control_url) == (CallStatus.IN_PROGRESS, f"{loopback.url}/c")
    assert found.control_url not in repr(found), "whoever knows it may end the call"


def test_one_that_vapi_does_not_know_is_none(api, loopback):
    loopback.answer = lambda asked: Reply(404, b"{}")
    assert api.get_call(CALL_ID) is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_for_a_person(api, loopback, status):
    loopback.answer = lambda asked: Reply(status, b"{}")
    with pytest.raises(CredentialsRejected):
        api.get_call(CALL_ID)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, b""),
        Reply(429, b""),
        Reply(400, b"{}"),
        Reply(302, b""),
        Reply(200, b"<html>"),
        Reply(200, b"[]"),
        Reply(200, json.dumps({"id": str(uuid4())}).encode()),
    ],
)
def test_anything_else_is_no_answer_and_never_absent(api, loopback, reply):
    loopback.answer = lambda asked: reply
    with pytest.raises(ProviderUnavailable):
        api.get_call(CALL_ID)


@pytest.mark.parametrize("external_id", ["", "x", "../assistant", f"{CALL_ID}/control", "a" * 36])
def test_only_ids_that_vapi_makes_are_asked_for(api, loopback, external_id):
    with pytest.raises(Refused):
        api.get_call(external_id)
    assert loopback.asked == []


def test_without_a_key_nothing_is_asked(loopback):
    with pytest.raises(CredentialsRejected):
        VapiApi("", loopback.url).get_call(CALL_ID)
    assert loopback.asked == []


def test_a_living_call_is_spoken_to_and_ended_and_one_that_is_over_is_not(api, loopback):
    loopback.answer = lambda asked: Reply(200, b"{}")
    assert api.say(f"{loopback.url}/control", "Bye.", then_end=True)
    assert api.end(f" <{loopback.url}/control> ")
    orders = [json.loads(one.body) for one in loopback.asked]
    assert orders == [
        {"type": "say", "content": "Bye.", "endCallAfterSpoken": True},
        {"type": "end-call"},
    ]
    loopback.answer = lambda asked: Reply(404, b"{}")
    assert not api.end(f"{loopback.url}/control")


@pytest.mark.parametrize("status", [500, 302])
def test_a_lost_answer_to_an_order_may_have_been_obeyed(api, loopback, status):
    loopback.answer = lambda asked: Reply(status, b"")
    with pytest.raises(OutcomeUnknown):
        api.end(f"{loopback.url}/control")
    assert len(loopback.asked) == 1, "an order is sent once"


@pytest.mark.parametrize(
    "url",
    [
        "http://phone.vapi.ai/control",
        "https://vapi.ai.evil.example/control",
        "https://evilvapi.ai/control",
        "https://phone.vapi.ai:8443/control",
        "https://user:pass@phone.vapi.ai/control",
        "https://127.0.0.1/control",
        "https://[::1]/control",
        "https://phone.vapi.ai@evil.example/control",
        "https://phone.vapi.ai:x/control",
        "file:///etc/passwd",
        "//phone.vapi.ai/control",
        "https://phone.väpi.ai/control",
        "https://evil.example\\.vapi.ai/control",
        "https://xn--a.vapi.ai/control",
        "https://phone.vapi.ai/\x01control",
        "https://phone.vapi.ai/" + "x" * 3_000,
        "",
    ],
)
def test_orders_go_to_vapis_own_hosts_alone(url):
    api = VapiApi("key")
    with pytest.raises(Refused) as refused:
        api.end(url)
    assert refused.value.code == "CONTROL_URL"


def test_a_stand_in_takes_orders_at_its_own_address_alone(api):
    for url in ("https://phone.vapi.ai/control", "http://127.0.0.1:1/control"):
        with pytest.raises(Refused):
            api.end(url)
