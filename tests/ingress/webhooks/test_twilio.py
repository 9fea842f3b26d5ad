"""Twilio's callbacks: signed with the subaccount's token over our public address."""

from __future__ import annotations

import secrets
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import SecretStr

from db.models import InboxEvent, Job
from domain import organizations
from tests.ingress.support import callback
from tests.ingress.webhooks.test_paypal import is_refused, nothing_is_stored
from tests.support.world import make_organization
from tests.workers.scenes import eventually, held, release

PUBLIC = "https://hooks.holdfast.example"
PATH = "/webhooks/twilio"
STATUS = {
    "MessageSid": "SM" + "1" * 32,
    "MessageStatus": "delivered",
    "FromCity": "",
    "ToZip": "",
    "Body": "a b+c&d=é ",
}


@pytest.fixture
def twilio(start_ingress, settings):
    """An ingress behind a proxy, whose public address differs from its own."""
    return start_ingress(settings.model_copy(update={"public_url": PUBLIC}))


@pytest.fixture
def make_account(world):
    """Make a subaccount of a new organization; return its sid and token."""

    def make():
        made = world.sandbox.control("POST", "/twilio/subaccounts", {})
        organization_id = make_organization(world.database)
        world.do(
            lambda session, now: organizations.create_brand(
                session, organization_id, name="b", twilio_subaccount_sid=made["sid"], now=now
            )
        )
        with world.database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM jobs")
        return made

    return make


@pytest.fixture
def account(make_account):
    """A subaccount of ours: its sid and token."""
    return make_account()


def asked_for_token(world, sid):
    return len(world.sandbox.requests(provider="twilio", path_contains=sid))


def signed(account, params=STATUS, url=PUBLIC + PATH, token=None):
    return callback(token or account["auth_token"], url, {"AccountSid": account["sid"], **params})


def test_signed_callback_is_stored_with_its_blank_and_odd_values(world, twilio, account):
    # When Twilio reports on a message
    message = signed(account)
    answer = twilio.send(message, PATH)

    # Then it is stored as it was sent, and no job follows from it
    assert answer.status_code == 200, answer.text
    (event,) = world.read(InboxEvent)
    assert (event.source, event.event_type) == ("twilio", "message.status")
    assert event.external_id == f"{STATUS['MessageSid']}:delivered"
    assert event.body == message.body
    assert b"FromCity=&" in event.body
    assert (event.outcome, world.read(Job)) == ("ignored", [])


def test_sandbox_delivers_through_a_proxy_and_its_query_string_counts(twilio, account):
    (delivery,) = twilio.sandbox.control(
        "POST",
        "/twilio/callbacks",
        {
            "sid": account["sid"],
            "url": f"{PUBLIC}{PATH}?message=msg_1&empty=&b=%2F+x",
            "params": {**STATUS, "MessageStatus": "sent"},
        },
    )
    assert delivery["status_code"] == 200, delivery


def test_call_that_ended_is_stored_too(world, twilio, account):
    params = {"CallSid": "CA" + "2" * 32, "CallStatus": "completed", "SequenceNumber": "3"}

    assert twilio.send(signed(account, params), PATH).status_code == 200
    assert world.read(InboxEvent)[0].event_type == "call.status"


def test_repeated_callback_is_stored_once_and_each_status_counts(world, twilio, account):
    # When the same status arrives five times and another one once
    deliver = {"sid": account["sid"], "url": PUBLIC + PATH, "params": STATUS}
    answers = twilio.sandbox.control("POST", "/twilio/callbacks", {**deliver, "copies": 5})
    other = twilio.send(signed(account, {**STATUS, "MessageStatus": "sent"}), PATH)

    # Then both facts are stored once
    assert [one["status_code"] for one in answers] == [200] * 5
    assert other.status_code == 200
    names = sorted(event.external_id.partition(":")[2] for event in world.read(InboxEvent))
    assert names == ["delivered", "sent"]


def test_repeat_with_more_fields_is_answered_and_changes_nothing(world, twilio, account):
    assert twilio.send(signed(account), PATH).status_code == 200

    again = twilio.send(signed(account, {**STATUS, "Price": "-0.0075"}), PATH)

    assert (again.status_code, again.json()["verdict"]) == (200, "differs")
    assert len(world.read(InboxEvent)) == 1


def test_token_of_a_subaccount_is_fetched_once(world, twilio, account):
    before = asked_for_token(world, account["sid"])
    for status in ("queued", "sent", "delivered"):
        params = {**STATUS, "MessageStatus": status}
        assert twilio.send(signed(account, params), PATH).status_code == 200

    assert asked_for_token(world, account["sid"]) - before == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.holdfast.example/webhooks/twilio",
        "https://elsewhere.example/webhooks/twilio",
        PUBLIC + PATH + "?a=1",
    ],
)
def test_signature_over_another_address_is_refused(world, twilio, account, url):
    assert is_refused(twilio.send(signed(account, url=url), PATH), 401)
    assert nothing_is_stored(world)


def test_changed_body_or_a_missing_signature_is_refused(world, twilio, account):
    message = signed(account)
    message.body += b"&Extra=1"
    assert is_refused(twilio.send(message, PATH), 401)

    message = signed(account)
    del message.headers["X-Twilio-Signature"]
    assert is_refused(twilio.send(message, PATH), 401)
    assert nothing_is_stored(world)


def test_parents_token_does_not_verify_a_subaccounts_callback(world, twilio, account):
    token = twilio.sandbox.info["twilio"]["auth_token"]

    assert is_refused(twilio.send(signed(account, token=token), PATH), 401)
    assert nothing_is_stored(world)


def test_unknown_account_is_refused_without_a_request(world, twilio):
    # Given a subaccount that Twilio knows and we do not
    stranger = world.sandbox.control("POST", "/twilio/subaccounts", {})

    # When it signs a callback, Then Twilio is not asked for its token
    assert is_refused(twilio.send(signed(stranger), PATH), 401)
    unknown = {"sid": "AC" + secrets.token_hex(16), "auth_token": "x"}
    assert is_refused(twilio.send(signed(unknown), PATH), 401)
    assert asked_for_token(world, stranger["sid"]) == 0
    assert nothing_is_stored(world)


@pytest.mark.parametrize(
    "params",
    [
        {"AccountSid": ""},
        {"AccountSid": "AC-odd"},
        {"AccountSid": "AC" + "1" * 31},
    ],
)
def test_callback_that_names_no_account_is_malformed(world, twilio, account, params):
    assert is_refused(twilio.send(signed(account, params), PATH), 400)
    assert nothing_is_stored(world)


@pytest.mark.parametrize(
    "params", [{}, {"MessageSid": "SM1", "MessageStatus": "<b>"}, {"CallSid": "CA1"}]
)
def test_verified_callback_without_an_object_is_malformed(world, twilio, account, params):
    assert is_refused(twilio.send(signed(account, params), PATH), 400)
    assert nothing_is_stored(world)


def test_callback_is_answered_503_without_a_token_from_twilio(twilio, account):
    # Given that the token cannot be fetched from Twilio
    fault = twilio.sandbox.fault("twilio", "drop")
    answer = twilio.send(signed(account), PATH)
    assert is_refused(answer, 503)
    assert answer.headers["retry-after"]

    # When it can be fetched, Then the callback is soon accepted
    twilio.sandbox.control("DELETE", f"/faults/{fault}")
    assert eventually(lambda: twilio.send(signed(account), PATH).status_code == 200)


def test_host_header_does_not_affect_the_signature(twilio, account):
    # Given a genuine callback
    message = signed(account)
    for host in (b"elsewhere.example", b"[", b"a/b?c=", b"hooks.holdfast.example/x", b"\xe9"):
        lines = [b"POST /webhooks/twilio HTTP/1.1", b"Host: " + host, b"Connection: close"]
        lines += [f"{key}: {value}".encode() for key, value in message.headers.items()]
        lines += [b"Content-Length: %d" % len(message.body), b"", message.body]

        # When its Host header is wrong, Then it is still verified with our public address
        answer = twilio.raw(b"\r\n".join(lines))
        assert answer.startswith(b"HTTP/1.1 200"), (host, answer)


def test_invalid_bytes_in_the_url_are_refused(world, twilio, account):
    message = signed(account)
    lines = [b"POST /webhooks/twilio?x=\xff\xfe HTTP/1.1", b"Host: x", b"Connection: close"]
    lines += [f"{key}: {value}".encode() for key, value in message.headers.items()]
    lines += [b"Content-Length: %d" % len(message.body), b"", message.body]

    answer = twilio.raw(b"\r\n".join(lines))

    assert answer.split(b" ")[1] in (b"400", b"401"), answer
    assert nothing_is_stored(world)


def roll(world, account):
    """Roll a subaccount's token at Twilio; return the account with its new token."""
    path = f"/twilio/subaccounts/{account['sid']}"
    return world.sandbox.control("POST", path, {"roll_token": True})


def numbered(number):
    return {**STATUS, "MessageSid": f"SM{number:032}"}


def test_rolled_token_is_fetched_at_the_first_signature_that_fails(world, twilio, account):
    # Given a cached token that is rolled at Twilio
    assert twilio.send(signed(account), PATH).status_code == 200
    rolled = roll(world, account)
    before = asked_for_token(world, account["sid"])
    # When callbacks that are signed with the new token arrive at once
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: twilio.send(signed(rolled, numbered(n)), PATH), range(8)))
    # Then each is accepted, for one request to Twilio, and the old token verifies nothing
    assert [one.status_code for one in answers] == [200] * 8
    assert asked_for_token(world, account["sid"]) - before == 1
    assert len(world.read(InboxEvent)) == 9
    assert is_refused(twilio.send(signed(account, numbered(99)), PATH), 401)


def test_forged_callbacks_cause_one_request_to_twilio(world, twilio, account):
    assert twilio.send(signed(account), PATH).status_code == 200
    before = asked_for_token(world, account["sid"])
    for _ in range(10):
        assert is_refused(twilio.send(signed(account, token="guess"), PATH), 401)
    assert asked_for_token(world, account["sid"]) - before == 1


def test_malformed_signature_costs_no_request(world, twilio, account, make_account):
    assert twilio.send(signed(account), PATH).status_code == 200
    before = asked_for_token(world, account["sid"])
    for odd in ("", "x", "x" * 28, "é".encode("latin-1")):
        answer = twilio.send(signed(account), PATH, **{"X-Twilio-Signature": odd})
        assert is_refused(answer, 401)
    assert asked_for_token(world, account["sid"]) - before == 0
    # Nor if no token is cached
    other = make_account()
    for odd in ("", "x" * 28):
        assert is_refused(twilio.send(signed(other), PATH, **{"X-Twilio-Signature": odd}), 401)
    assert asked_for_token(world, other["sid"]) == 0


def test_callback_is_answered_503_when_the_new_token_is_unavailable(world, twilio, account):
    assert twilio.send(signed(account), PATH).status_code == 200
    rolled = roll(world, account)
    fault = world.sandbox.fault("twilio", "status", status=503)
    # Then each callback is answered 503, and none is refused as forged
    for number in range(3):
        assert is_refused(twilio.send(signed(rolled, numbered(number)), PATH), 503)
    assert is_refused(twilio.send(signed(account, numbered(9), token="guess"), PATH), 503)
    # And once Twilio answers, the genuine callback is accepted and the forged one is refused
    world.sandbox.control("DELETE", f"/faults/{fault}")
    assert eventually(lambda: twilio.send(signed(rolled, numbered(4)), PATH).status_code == 200)
    assert is_refused(twilio.send(signed(account, numbered(9), token="guess"), PATH), 401)


def fetching_threads():
    """Count the threads in which the ingress fetches credentials now."""
    count = 0
    for innermost in sys._current_frames().values():
        frame = innermost
        while frame is not None and frame.f_code.co_name not in ("_token_of", "_newer_token"):
            frame = frame.f_back
        count += frame is not None
    return count


def test_forged_callbacks_take_few_threads_while_twilio_is_silent(
    world, twilio, account, make_account
):
    # Given a subaccount with a cached token, eight without one, and a silent Twilio
    assert twilio.send(signed(account), PATH).status_code == 200
    forged = [signed(made, token="guess") for made in [make_account() for _ in range(8)] * 6]
    fault = world.sandbox.fault("twilio", "hold", times=1_000)

    def send(message):
        url, headers = twilio.url + PATH, message.headers
        return httpx.post(url, content=message.body, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(len(forged)) as pool:
        # When forged callbacks of the eight arrive, many at once
        flood = [pool.submit(send, one) for one in forged]
        assert held(world, fault)
        threads, number = [], 0
        while not all(one.done() for one in flood):
            # Then genuine callbacks of the first subaccount are accepted meanwhile
            assert twilio.send(signed(account, numbered(number)), PATH).status_code == 200
            threads.append(fetching_threads())
            number += 1
        # And the forged ones, which cannot be verified now, wait for Twilio in a few threads
        assert {one.result() for one in flood} == {503}
    assert 1 <= max(threads) <= 4
    release(world, fault)


def test_either_parent_token_proves_a_callback_while_it_is_rolled(
    world, settings, start_ingress, account
):
    # Given two tokens of the parent account, of which Twilio accepts the first
    known = world.sandbox.info["twilio"]
    both = SecretStr(f"{known['auth_token']}, next-token")
    changed = {"public_url": PUBLIC, "twilio_auth_token": both}
    ingress = start_ingress(settings.model_copy(update=changed))
    parent = {"sid": known["account_sid"], "auth_token": known["auth_token"]}
    # Then callbacks of the parent account are verified with either token, and with no other
    for number, (token, status) in enumerate(
        [(parent["auth_token"], 200), ("next-token", 200), ("third", 401), (str(both), 401)]
    ):
        answer = ingress.send(signed(parent, numbered(number), token=token), PATH)
        assert answer.status_code == status
    # And requests to Twilio use the first token
    assert ingress.send(signed(account, numbered(9)), PATH).status_code == 200
