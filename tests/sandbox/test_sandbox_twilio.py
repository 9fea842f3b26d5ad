"""Twilio's stand-in, used through Twilio's own SDK."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client


class Rewriting(TwilioHttpClient):
    def __init__(self, base_url: str) -> None:
        super().__init__(timeout=5, pool_connections=False)
        self._base_url = base_url

    def request(self, method, url, *args, **kwargs):
        return super().request(
            method, url.replace("https://api.twilio.com", self._base_url), *args, **kwargs
        )


@pytest.fixture
def client(sandbox):
    known = sandbox.info["twilio"]
    return Client(
        known["account_sid"], known["auth_token"], http_client=Rewriting(known["base_url"])
    )


def code_of(call) -> tuple[int, int]:
    with pytest.raises(TwilioRestException) as refused:
        call()
    return refused.value.status, refused.value.code


def test_sdk_suspends_reads_and_restores_a_subaccount(sandbox, client, account):
    # Given an active subaccount / When it is suspended, twice
    of = client.api.v2010.accounts(account["sid"])
    assert of.fetch().status == "active"
    of.update(status="suspended")
    assert of.update(status="suspended").status == "suspended"
    # Then that is its status, it may not send, and its history shows how each change was made
    assert of.fetch().status == "suspended"
    send = of.messages.create
    assert code_of(lambda: send(to="+15005550006", from_="+15005550001", body="hi")) == (403, 20005)
    assert of.update(status="active").status == "active"
    assert send(to="+15005550006", from_="+15005550001", body="hi").status == "queued"
    shown = sandbox.control("GET", f"/twilio/subaccounts/{account['sid']}")
    assert [(one["status"], one["via"]) for one in shown["history"]] == [
        ("active", "twilio"),
        ("suspended", "api"),
        ("suspended", "api"),
        ("active", "api"),
    ]
    assert shown["requests"] == 7


def test_sdk_creates_a_subaccount_with_its_own_token(sandbox, client):
    made = client.api.v2010.accounts.create(friendly_name="Beta")
    assert made.status == "active" and len(made.auth_token) == 32
    own = Client(
        made.sid, made.auth_token, http_client=Rewriting(sandbox.info["twilio"]["base_url"])
    )
    # Then it may use its own resources, but not change its status
    assert own.messages.create(to="+15005550006", from_="+15005550001", body="x").sid
    of = own.api.v2010.accounts(made.sid)
    assert code_of(lambda: of.update(status="suspended")) == (401, 20003)
    assert made.sid in {one.sid for one in client.api.v2010.accounts.list()}


def test_status_changes_are_refused_with_twilios_codes(sandbox, client, account):
    of = client.api.v2010.accounts(account["sid"])
    path = f"/twilio/subaccounts/{account['sid']}"
    parent = client.api.v2010.accounts(sandbox.info["twilio"]["account_sid"])
    unknown = client.api.v2010.accounts("AC" + "0" * 32)
    assert code_of(lambda: of.update(status="frozen")) == (400, 21475)
    assert code_of(lambda: parent.update(status="suspended")) == (400, 21477)
    assert code_of(unknown.fetch) == (404, 20404)
    # When Twilio itself suspends it / Then its parent cannot restore it
    sandbox.control("POST", path, {"suspended_by_twilio": True})
    assert code_of(lambda: of.update(status="active")) == (400, 21478)
    sandbox.control("POST", path, {"suspended_by_twilio": False})
    assert of.fetch().status == "active"
    # When it is closed / Then it remains closed
    of.update(status="closed")
    assert code_of(lambda: of.update(status="active")) == (400, 21479)
    assert of.fetch().status == "closed"


def test_wrong_credentials_are_refused(sandbox, account):
    known = sandbox.info["twilio"]
    wrong = Client(known["account_sid"], "wrong", http_client=Rewriting(known["base_url"]))
    assert code_of(wrong.api.v2010.accounts(account["sid"]).fetch) == (401, 20003)


def test_live_calls_continue_during_a_suspension_until_completed(sandbox, client, account):
    call = sandbox.control("POST", "/twilio/calls", {"sid": account["sid"]})
    of = client.api.v2010.accounts(account["sid"])
    of.update(status="suspended")
    running = of.calls.list(status="in-progress")
    assert [one.sid for one in running] == [call["sid"]]
    assert of.calls(call["sid"]).update(status="completed").status == "completed"
    assert of.calls.list(status="in-progress") == []
    assert code_of(lambda: of.calls(call["sid"]).update(status="completed")) == (400, 21220)


def test_callback_is_signed_over_the_public_url_with_the_subaccount_token(
    sandbox, listener, account
):
    public = "https://hooks.holdfast.example/webhooks/twilio?kind=status"
    params = {"CallSid": "CA1", "CallStatus": "completed", "CallDuration": "9", "ToZip": ""}
    sent = sandbox.control(
        "POST", "/twilio/callbacks", {"sid": account["sid"], "url": public, "params": params}
    )
    assert sent[0]["status_code"] == 200
    (request,) = listener.wait_for(1)
    assert request.path == "/webhooks/twilio?kind=status"
    form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    assert form["AccountSid"] == account["sid"]
    signature = request.headers["X-Twilio-Signature"]
    assert RequestValidator(account["auth_token"]).validate(public, form, signature)
    parent_token = sandbox.info["twilio"]["auth_token"]
    assert not RequestValidator(parent_token).validate(public, form, signature)
