from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest

from base.clock import wait_until
from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from base.outcomes import OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected
from providers.twilio import tokens
from providers.twilio.api import TwilioApi
from tests.providers.support import PARENT, SID, Asked, Clock, Loopback, Reply, json_reply, sample

PATH = f"/2010-04-01/Accounts/{SID}.json"


def account(status: str = "active", **more: object) -> Reply:
    members = {"sid": SID, "status": status, "auth_token": "subaccount-token", **more}
    return json_reply(members)


def error(code: int, status: int, **headers: str) -> Reply:
    body = {"code": code, "message": "no", "more_info": "", "status": status}
    return json_reply(body, status, **headers)


def problem(code: int, status: int) -> Reply:
    return json_reply(
        {"type": "about:blank", "title": "no", "status": status, "code": code}, status
    )


@pytest.fixture
def api(loopback: Loopback, clock: Clock) -> Iterator[TwilioApi]:
    loopback.answer = lambda asked: account()
    built = TwilioApi(PARENT, "parent-token", loopback.url, window_seconds=10, clock=clock)
    yield built
    built.close()


@pytest.mark.parametrize("status", ["active", "suspended", "closed"])
def test_subaccount_is_read_with_the_parents_credentials(api, loopback, status):
    loopback.answer = lambda asked: account(status)
    assert api.get_subaccount(SID) == SubaccountFacts(SID, TwilioStatus(status))
    asked = loopback.asked[0]
    assert (asked.method, asked.path) == ("GET", PATH)
    assert asked.headers["Authorization"].startswith("Basic ")


def test_twilios_own_example_of_an_account_is_read(api, loopback):
    body = sample("twilio/api_get_Accounts_Sid_fetch.json").read_bytes()
    loopback.answer = lambda asked: Reply(200, body)
    sid = json.loads(body)["sid"]
    assert api.get_subaccount(sid) == SubaccountFacts(sid, TwilioStatus.ACTIVE)


@pytest.mark.parametrize("reply", [error(20404, 404), problem(20404, 404), Reply(404, b"<html>")])
def test_subaccount_that_twilio_does_not_know_is_absent(api, loopback, reply):
    loopback.answer = lambda asked: reply
    assert api.get_subaccount(SID) == SubaccountFacts(SID, TwilioStatus.ABSENT)


@pytest.mark.parametrize("status", ["absent", "frozen", "", None, 5])
def test_unknown_account_status_is_refused(api, loopback, status):
    loopback.answer = lambda asked: account(status)
    with pytest.raises(Refused) as caught:
        api.get_subaccount(SID)
    assert caught.value.code == "UNKNOWN_STATUS"
    # And after a change the outcome is unknown
    with pytest.raises(OutcomeUnknown):
        api.set_subaccount_status(SID, TwilioStatus.SUSPENDED)


@pytest.mark.parametrize("status", [TwilioStatus.ACTIVE, TwilioStatus.SUSPENDED])
def test_status_is_set_by_one_request(api, loopback, status):
    loopback.answer = lambda asked: account(parse_qs(asked.body.decode())["Status"][0])
    assert api.set_subaccount_status(SID, status) == SubaccountFacts(SID, status)
    assert [(asked.method, asked.path, asked.body) for asked in loopback.asked] == [
        ("POST", PATH, f"Status={status}".encode())
    ]


@pytest.mark.parametrize("status", [TwilioStatus.CLOSED, TwilioStatus.ABSENT])
def test_subaccount_is_never_closed(api, loopback, status):
    with pytest.raises(Refused):
        api.set_subaccount_status(SID, status)
    assert loopback.asked == []


def test_parent_account_is_never_changed(api, loopback):
    with pytest.raises(Refused) as caught:
        api.set_subaccount_status(PARENT, TwilioStatus.SUSPENDED)
    assert caught.value.code == "PARENT_ACCOUNT"
    assert loopback.asked == []


@pytest.mark.parametrize("make", [error, problem])
@pytest.mark.parametrize("code", [21475, 21476])
def test_unrelated_4xx_is_an_outage_and_no_refusal(api, loopback, make, code):
    loopback.answer = lambda asked: make(code, 400)
    with pytest.raises(ProviderUnavailable, match=str(code)):
        api.set_subaccount_status(SID, TwilioStatus.ACTIVE)


@pytest.mark.parametrize("make", [error, problem])
@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        (21478, 400, "SUSPENDED_BY_TWILIO"),
        (21479, 400, "SUBACCOUNT_CLOSED"),
        (20404, 404, "SUBACCOUNT_MISSING"),
    ],
)
def test_twilio_error_is_mapped_to_our_refusal(api, loopback, make, code, status, expected):
    loopback.answer = lambda asked: make(code, status)
    with pytest.raises(Refused) as caught:
        api.set_subaccount_status(SID, TwilioStatus.ACTIVE)
    assert caught.value.code == expected
    assert caught.value.ids == {"external_id": SID}
    assert len(loopback.asked) == 1


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(502, b"<html>bad gateway</html>"),
        error(20500, 500),
        problem(20500, 500),
        Reply(200, b"<html>a portal</html>"),
        Reply(200, b"[]"),
        Reply(302, headers={"Location": "/"}),
        account(sid="AC" + "2" * 32),
        json_reply({"sid": SID, "status": "active", "date_created": 5}),
        json_reply({"sid": SID, "status": "active", "date_created": "Thu, 99 Jul 2015 20:00:00"}),
    ],
    ids=["lost", "502", "500", "500 rfc 9457", "html", "list", "302", "another", "odd", "odd day"],
)
def test_change_without_a_clear_answer_is_unknown_and_sent_once(api, loopback, reply):
    loopback.answer = lambda asked: reply
    with pytest.raises(OutcomeUnknown):
        api.set_subaccount_status(SID, TwilioStatus.SUSPENDED)
    assert len(loopback.asked) == 1


def test_change_that_hangs_is_unknown(loopback):
    # Given a Twilio that accepts the request and does not answer
    release = threading.Event()
    loopback.answer = lambda asked: release.wait(5) and None
    api = TwilioApi(PARENT, "parent-token", loopback.url, window_seconds=0.3)
    # When a subaccount is suspended, Then the outcome is unknown
    with pytest.raises(OutcomeUnknown):
        api.set_subaccount_status(SID, TwilioStatus.SUSPENDED)
    release.set()
    api.close()
    assert len(loopback.asked) == 1


def test_429_is_unavailable_and_names_the_wait(api, loopback):
    loopback.answer = lambda asked: error(20429, 429, Retry_After="9")
    with pytest.raises(ProviderUnavailable) as caught:
        api.set_subaccount_status(SID, TwilioStatus.SUSPENDED)
    assert caught.value.retry_after_seconds == 9.0
    assert len(loopback.asked) == 1


def test_unsent_change_is_unavailable():
    api = TwilioApi(PARENT, "parent-token", "http://127.0.0.1:1", window_seconds=1)
    with pytest.raises(ProviderUnavailable):
        api.set_subaccount_status(SID, TwilioStatus.SUSPENDED)
    api.close()


def test_read_is_repeated(api, loopback):
    replies = iter([Reply(502, b"<html>"), None, account("suspended")])
    loopback.answer = lambda asked: next(replies)
    assert api.get_subaccount(SID).status is TwilioStatus.SUSPENDED


def test_unanswered_read_is_an_outage_and_never_absent(api, loopback):
    for reply in (None, Reply(500), error(20429, 429), Reply(200, b"<html>")):
        loopback.answer = lambda asked, reply=reply: reply
        with pytest.raises(ProviderUnavailable):
            api.get_subaccount(SID)


@pytest.mark.parametrize("reply", [error(20003, 401), error(20005, 403)])
def test_refused_credentials_raise_credentials_rejected(api, loopback, reply):
    loopback.answer = lambda asked: reply
    with pytest.raises(CredentialsRejected):
        api.get_subaccount(SID)
    with pytest.raises(CredentialsRejected):
        api.set_subaccount_status(SID, TwilioStatus.SUSPENDED)


@pytest.mark.parametrize(
    "sid", ["", "AC1", PARENT.upper(), f"{SID}\n", f"{SID[:-3]}/..", "CA" + SID[2:]]
)
def test_invalid_sid_is_refused_without_a_request(api, loopback, sid):
    for ask in (
        lambda: api.get_subaccount(sid),
        lambda: api.set_subaccount_status(sid, TwilioStatus.ACTIVE),
        lambda: api.subaccount_token(sid),
    ):
        with pytest.raises(Refused):
            ask()
    assert loopback.asked == []


def test_twilio_region_variable_does_not_change_the_host(api, loopback, monkeypatch):
    # Given environment variables that would send the SDK to another host
    monkeypatch.setenv("TWILIO_REGION", "au1")
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    assert api.get_subaccount(SID).status is TwilioStatus.ACTIVE
    assert len(loopback.asked) == 1


def test_token_is_fetched_once_and_again_after_its_lifetime(api, loopback, clock):
    # Given an empty cache
    assert api.proof_tokens(SID) == ()
    # When a token is requested twice, Then Twilio is asked once
    assert api.subaccount_token(SID) == "subaccount-token"
    assert api.subaccount_token(SID) == "subaccount-token"
    assert api.proof_tokens(SID) == ("subaccount-token",)
    assert len(loopback.asked) == 1
    # And once the token has expired from the cache, a rolled token is found
    loopback.answer = lambda asked: account(auth_token="rolled")
    clock.seconds += tokens.TOKEN_TTL_SECONDS
    assert api.proof_tokens(SID) == ()
    assert api.subaccount_token(SID) == "rolled"


def test_parents_token_is_known_without_a_request(api, loopback):
    assert api.subaccount_token(PARENT) == "parent-token"
    assert loopback.asked == []


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [(404, 20404, Refused), (503, 20500, ProviderUnavailable), (401, 20003, CredentialsRejected)],
)
def test_failed_token_fetch_is_not_repeated_at_once(api, loopback, clock, status, code, raised):
    # Given a first fetch that fails
    loopback.answer = lambda asked: error(code, status)
    with pytest.raises(raised) as first:
        api.subaccount_token(SID)
    asked = len(loopback.asked)
    loopback.answer = lambda asked: account()
    # When others ask soon after, Then each gets its own copy of the error, without a request
    clock.seconds += tokens.FAILED_SECONDS - 0.1
    with pytest.raises(raised, match=re.escape(str(first.value))) as second:
        api.subaccount_token(SID)
    assert second.value is not first.value
    assert len(loopback.asked) == asked
    # And when the wait is over, Twilio is asked
    clock.seconds += 0.1
    assert api.subaccount_token(SID) == "subaccount-token"


def test_answer_without_a_token_is_an_outage(api, loopback):
    loopback.answer = lambda asked: account(auth_token=None)
    with pytest.raises(ProviderUnavailable):
        api.subaccount_token(SID)


def test_many_threads_share_one_client(api, loopback):
    # Given a Twilio that answers each request about the account in its path
    def answer(asked: Asked) -> Reply:
        return account(sid=asked.path.rsplit("/", 1)[1].removesuffix(".json"))

    loopback.answer = answer
    sids = [f"AC{number:032x}" for number in range(16)]
    found: list[str] = []
    # When sixteen threads ask at once
    threads = [
        threading.Thread(target=lambda sid=sid: found.append(api.get_subaccount(sid).external_id))
        for sid in sids
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then each has its own answer
    assert sorted(found) == sids


@pytest.mark.parametrize("known", [20003, 20404, 20429, 21476, 21477, 21478, 21479, 20500])
def test_every_documented_twilio_error_has_an_outcome(api, loopback, known):
    bodies = json.loads(sample("twilio/error_bodies.json").read_text())
    found = next(body for body in bodies if body["body"]["code"] == known)
    loopback.answer = lambda asked: json_reply(found["body"], found["http_status"])
    with pytest.raises((Refused, OutcomeUnknown, ProviderUnavailable, CredentialsRejected)):
        api.set_subaccount_status(SID, TwilioStatus.ACTIVE)


def test_token_is_refetched_once_until_the_wait_is_over(api, loopback, clock):
    # Given a cached token, and a signature that does not match it
    assert api.subaccount_token(SID) == "subaccount-token"
    assert api.newer_token(SID, "subaccount-token") is None
    assert len(loopback.asked) == 2
    # When other signatures fail soon after, Then Twilio is not asked, although the token was rolled
    loopback.answer = lambda asked: account(auth_token="rolled")
    clock.seconds += tokens.REFETCH_SECONDS - 1
    assert api.newer_token(SID, "subaccount-token") is None
    assert len(loopback.asked) == 2
    # And when the wait is over, Twilio is asked, and the newer token is cached
    clock.seconds += 1
    assert api.newer_token(SID, "subaccount-token") == "rolled"
    assert api.newer_token(SID, "subaccount-token") == "rolled"
    assert (api.proof_tokens(SID), len(loopback.asked)) == (("rolled",), 3)


def test_failed_refetch_does_not_count_as_no_newer_token(api, loopback, clock):
    # Given a cached token, and a refetch that fails
    assert api.subaccount_token(SID) == "subaccount-token"
    loopback.answer = lambda asked: error(20404, 404)
    with pytest.raises(Refused):
        api.newer_token(SID, "subaccount-token")
    loopback.answer = lambda asked: account(auth_token="rolled")
    # When others ask soon after, Then they get the same error without a request
    clock.seconds += tokens.FAILED_SECONDS - 0.1
    with pytest.raises(Refused):
        api.newer_token(SID, "subaccount-token")
    assert len(loopback.asked) == 2
    # And soon, long before REFETCH_SECONDS, Twilio is asked again
    clock.seconds += 0.1
    assert api.newer_token(SID, "subaccount-token") == "rolled"


def test_concurrent_fetches_of_one_token_share_a_request(api, loopback):
    # Given a Twilio that answers when eight threads have asked
    go_on = threading.Event()

    def answer(asked: Asked) -> Reply:
        assert go_on.wait(10)
        return account()

    loopback.answer = answer
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(api.subaccount_token, SID) for _ in range(8)]
        assert wait_until(lambda: len(loopback.asked) > 0, limit_seconds=10)
        go_on.set()
        # Then each has the token, for one request
        assert [one.result(10) for one in asking] == ["subaccount-token"] * 8
    assert len(loopback.asked) == 1


def test_both_parent_tokens_verify_and_requests_use_the_first(loopback):
    loopback.answer = lambda asked: account()
    api = TwilioApi(PARENT, " first , second ", loopback.url)
    assert api.proof_tokens(PARENT) == ("first", "second")
    assert api.newer_token(PARENT, "second") is None
    api.get_subaccount(SID)
    basic = base64.b64encode(f"{PARENT}:first".encode()).decode()
    assert loopback.asked[0].headers["Authorization"] == f"Basic {basic}"
    api.close()
