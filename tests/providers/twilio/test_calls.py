from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from base.outcomes import OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected
from providers.http.client import READ_SECONDS
from providers.twilio.api import TwilioApi
from tests.providers.support import PARENT, SID, Asked, Loopback, Reply, json_reply, sample
from tests.support.sandbox import RunningSandbox

CALL = "CA" + "1" * 32
PATH = f"/2010-04-01/Accounts/{SID}/Calls"


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[TwilioApi]:
    known = sandbox.info["twilio"]
    built = TwilioApi(
        known["account_sid"], known["auth_token"], known["base_url"], window_seconds=10
    )
    yield built
    built.close()


@pytest.fixture
def sid(sandbox: RunningSandbox) -> str:
    return sandbox.control("POST", "/twilio/subaccounts", {})["sid"]


@pytest.fixture
def odd(loopback: Loopback) -> Iterator[TwilioApi]:
    """Twilio's API, whose answers come from the loopback server."""
    built = TwilioApi(PARENT, "parent-token", loopback.url, window_seconds=5)
    yield built
    built.close()


def begin(sandbox: RunningSandbox, sid: str, status: str = "in-progress") -> str:
    return sandbox.control("POST", "/twilio/calls", {"sid": sid, "status": status})["sid"]


def error(code: int, status: int) -> Reply:
    return json_reply({"code": code, "message": "no", "more_info": "", "status": status}, status)


def page(*sids: object, then: object = None, **more: object) -> Reply:
    calls = [{"sid": one, "status": "in-progress"} for one in sids]
    return json_reply({"calls": calls, "next_page_uri": then, **more})


def test_list_has_exactly_the_live_calls_of_the_account(api, sandbox, sid):
    # Given calls in every state, and a call of another account
    live = [begin(sandbox, sid, status) for status in ("queued", "ringing", "in-progress")]
    over = begin(sandbox, sid)
    assert api.complete_call(sid, over)
    other = sandbox.control("POST", "/twilio/subaccounts", {})["sid"]
    begin(sandbox, other)
    # Then the calls that have not ended are listed, each once
    assert sorted(api.live_calls(sid)) == sorted(live)


def test_account_without_calls_has_an_empty_list(api, sid):
    assert api.live_calls(sid) == []


def test_calls_of_a_suspended_account_are_listed_and_ended(api, sandbox, sid):
    # Given a call that a suspension did not end
    call = begin(sandbox, sid)
    sandbox.control("POST", f"/twilio/subaccounts/{sid}", {"status": "suspended"})
    assert api.live_calls(sid) == [call]
    assert api.call_is_live(sid, call) is True
    # When it is ended, Then it is over, and ending it again has no effect
    assert api.complete_call(sid, call) is True
    assert api.call_is_live(sid, call) is False
    assert api.live_calls(sid) == []
    assert api.complete_call(sid, call) is False


def test_call_unknown_to_the_account_is_neither_live_nor_over(api, sid):
    assert api.call_is_live(sid, CALL) is None
    with pytest.raises(Refused) as caught:
        api.complete_call(sid, CALL)
    assert caught.value.code == "CALL_MISSING"


def test_unknown_account_has_no_list(api):
    with pytest.raises(Refused) as caught:
        api.live_calls(SID)
    assert caught.value.code == "SUBACCOUNT_MISSING"


def test_concurrent_ends_complete_a_call_once(api, sandbox, sid):
    call = begin(sandbox, sid)
    ended: list[bool] = []
    threads = [
        threading.Thread(target=lambda: ended.append(api.complete_call(sid, call)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == [False] * 7 + [True]


def test_lost_answer_to_an_end_is_unknown_and_sent_once(api, sandbox, sid):
    # Given a Twilio that acts and loses its answer
    call = begin(sandbox, sid)
    sandbox.fault("twilio", "act_then_drop", match={"method": "POST"})
    # When a call is ended, Then the outcome is unknown
    with pytest.raises(OutcomeUnknown):
        api.complete_call(sid, call)
    assert len(sandbox.requests(provider="twilio", method="POST")) == 1
    # And the call's own state shows that it has ended
    assert api.call_is_live(sid, call) is False


def test_every_page_is_requested(api, sandbox, sid):
    # Given more calls than fit on one page
    live = {begin(sandbox, sid) for _ in range(1_003)}
    # Then all of them are listed, each once
    found = api.live_calls(sid, window_seconds=30)
    assert len(found) == 1_003
    assert set(found) == live


def test_pages_follow_the_call_states_and_list_each_call_once(odd, loopback):
    # Given a call that starts to ring, and is answered, while calls are listed
    sids = [f"CA{number:032x}" for number in range(5)]
    following = f"{PATH}.json?Status=ringing&PageSize=1000&Page=1&PageToken=PA{sids[1]}"
    lists = {"queued": page(sids[0]), "in-progress": page(sids[0], sids[3], sids[3])}

    def answer(asked: Asked) -> Reply:
        query = parse_qs(urlsplit(asked.path).query)
        assert urlsplit(asked.path).path == f"{PATH}.json"
        assert query["PageSize"] == ["1000"]
        if query["Status"] == ["ringing"]:
            return page(sids[2]) if "PageToken" in query else page(sids[1], then=following)
        return lists[query["Status"][0]]

    loopback.answer = answer
    assert odd.live_calls(SID) == sids[:4]
    states = [parse_qs(urlsplit(asked.path).query)["Status"][0] for asked in loopback.asked]
    assert states == ["queued", "ringing", "ringing", "in-progress"]


@pytest.mark.parametrize(
    "second",
    [
        None,
        Reply(502, b"<html>"),
        Reply(200, b"<html>a portal</html>"),
        Reply(200, b"{}"),
        error(20429, 429),
        json_reply({"calls": []}),
        json_reply({"calls": None, "next_page_uri": None}),
        json_reply({"calls": {}, "next_page_uri": None}),
        json_reply({"calls": [None], "next_page_uri": None}),
        page(None),
        page("CA1"),
        page(SID),
        page(then=""),
        page(then=5),
        page(then="https://evil.example/x"),
        page(then="//evil.example/x"),
        page(then="@evil.example/x"),
        page(then=f"/2010-04-01/Accounts/{PARENT}/Calls.json?Page=1"),
        page(then=f"{PATH}/../../Keys.json?Page=1"),
    ],
)
def test_incomplete_list_is_an_outage(odd, loopback, second):
    # Given a first page, and a faulty answer in place of the second
    following = f"{PATH}.json?Status=queued&PageSize=1000&Page=1&PageToken=PA1"
    loopback.answer = lambda asked: (
        second if "PageToken" in asked.path else page(CALL, then=following)
    )
    # Then no list is returned, and no other address was requested
    with pytest.raises(ProviderUnavailable):
        odd.live_calls(SID, window_seconds=2)
    assert {urlsplit(asked.path).path for asked in loopback.asked} == {f"{PATH}.json"}


def test_failed_page_alone_is_requested_again(odd, loopback):
    following = f"{PATH}.json?Status=queued&PageSize=1000&Page=1&PageToken=PA1"
    seconds = iter([Reply(503), None, page()])

    def answer(asked: Asked) -> Reply | None:
        if "PageToken" in asked.path:
            return next(seconds)
        return page(CALL, then=following if "Status=queued" in asked.path else None)

    loopback.answer = answer
    assert odd.live_calls(SID) == [CALL]
    assert len(loopback.asked) == 6


def test_endless_list_is_given_up_at_the_deadline(odd, loopback):
    following = f"{PATH}.json?Status=queued&PageSize=1000&Page=1&PageToken=PA1"
    loopback.answer = lambda asked: page(CALL, then=following)
    with pytest.raises(ProviderUnavailable):
        odd.live_calls(SID, window_seconds=0.5)


@pytest.mark.parametrize("reply", [error(20003, 401), error(20005, 403), Reply(401, b"<html>")])
def test_refused_credentials_raise_credentials_rejected(odd, loopback, reply):
    loopback.answer = lambda asked: reply
    for ask in (
        lambda: odd.live_calls(SID),
        lambda: odd.complete_call(SID, CALL),
        lambda: odd.call_is_live(SID, CALL),
    ):
        with pytest.raises(CredentialsRejected):
            ask()


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(502, b"<html>"),
        error(20500, 500),
        Reply(200, b"<html>a portal</html>"),
        Reply(302, headers={"Location": "/"}),
        json_reply({"status": "completed"}),
        json_reply({"sid": "CA" + "2" * 32, "status": "completed"}),
        json_reply({"sid": CALL, "date_created": 5}),
    ],
)
def test_unclear_answer_to_an_end_is_unknown_and_sent_once(odd, loopback, reply):
    loopback.answer = lambda asked: reply
    with pytest.raises(OutcomeUnknown):
        odd.complete_call(SID, CALL)
    assert [(asked.method, asked.path, asked.body) for asked in loopback.asked] == [
        ("POST", f"{PATH}/{CALL}.json", b"Status=completed")
    ]
    # And a read without a clear answer is an outage
    with pytest.raises(ProviderUnavailable):
        odd.call_is_live(SID, CALL)


@pytest.mark.parametrize("status", [[], {}, ["completed"], 5, True, "", "Completed", "paused"])
def test_call_is_live_refuses_when_the_status_is_unknown(odd, loopback, status):
    loopback.answer = lambda asked: json_reply({"sid": CALL, "status": status})
    with pytest.raises(Refused) as caught:
        odd.call_is_live(SID, CALL)
    assert caught.value.code == "UNKNOWN_STATUS"


@pytest.mark.parametrize("reply", [error(21220, 400), error(21220, 404)])
def test_ending_a_finished_call_is_no_error(odd, loopback, reply):
    loopback.answer = lambda asked: reply
    assert odd.complete_call(SID, CALL) is False


def test_unsent_or_refused_end_is_unavailable(odd, loopback):
    loopback.answer = lambda asked: error(20429, 429)
    with pytest.raises(ProviderUnavailable):
        odd.complete_call(SID, CALL)
    assert len(loopback.asked) == 1
    nowhere = TwilioApi(PARENT, "parent-token", "http://127.0.0.1:1", window_seconds=1)
    with pytest.raises(ProviderUnavailable):
        nowhere.complete_call(SID, CALL)
    nowhere.close()


@pytest.mark.parametrize(
    ("status", "is_live"),
    [
        ("queued", True),
        ("ringing", True),
        ("in-progress", True),
        ("completed", False),
        ("busy", False),
        ("failed", False),
        ("no-answer", False),
        ("canceled", False),
    ],
)
def test_every_state_of_a_call_is_live_or_over(odd, loopback, status, is_live):
    loopback.answer = lambda asked: json_reply({"sid": CALL, "status": status})
    assert odd.call_is_live(SID, CALL) is is_live


@pytest.mark.parametrize("status", ["resting", "", None, 5])
def test_unknown_call_status_is_refused(odd, loopback, status):
    loopback.answer = lambda asked: json_reply({"sid": CALL, "status": status})
    with pytest.raises(Refused) as caught:
        odd.call_is_live(SID, CALL)
    assert caught.value.code == "UNKNOWN_STATUS"


def test_twilios_own_example_of_a_call_is_read(odd, loopback):
    body = sample("twilio/api_post_Accounts_AccountSid_Calls_Sid_update.json").read_bytes()
    loopback.answer = lambda asked: Reply(200, body)
    call = json.loads(body)
    assert odd.complete_call(call["account_sid"], call["sid"]) is True
    assert odd.call_is_live(call["account_sid"], call["sid"]) is False


@pytest.mark.parametrize("bad", ["", "CA1", CALL + "\n", CALL.upper() + "g", "SM" + "1" * 32])
def test_invalid_sid_is_refused_without_a_request(odd, loopback, bad):
    for ask in (
        lambda: odd.complete_call(SID, bad),
        lambda: odd.call_is_live(SID, bad),
        lambda: odd.complete_call(bad, CALL),
        lambda: odd.call_is_live(bad, CALL),
        lambda: odd.live_calls(bad),
    ):
        with pytest.raises(Refused) as caught:
            ask()
        assert caught.value.code == "INVALID_ID"
    assert loopback.asked == []


def test_callers_time_limit_bounds_every_request(odd, loopback):
    # Given a Twilio that accepts the request and does not answer
    release = threading.Event()
    loopback.answer = lambda asked: release.wait(10) and None
    asks = {
        OutcomeUnknown: [lambda: odd.complete_call(SID, CALL, window_seconds=0.3)],
        ProviderUnavailable: [
            lambda: odd.live_calls(SID, window_seconds=0.3),
            lambda: odd.call_is_live(SID, CALL, window_seconds=0.3),
        ],
    }
    # Then each call ends at its own deadline, earlier than the default one
    for expected, each in asks.items():
        for ask in each:
            began = time.monotonic()
            with pytest.raises(expected):
                ask()
            assert time.monotonic() - began < READ_SECONDS - 1
    release.set()
