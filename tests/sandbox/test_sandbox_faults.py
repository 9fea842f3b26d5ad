"""Faults: the effect of a lost request, its sender's view, and the journal."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from base.clock import wait_until
from tests.support.sandbox import SANDBOX_SECONDS


def set_status(sandbox, account, status: str, timeout: float = SANDBOX_SECONDS) -> httpx.Response:
    known = sandbox.info["twilio"]
    return httpx.post(
        f"{known['base_url']}/2010-04-01/Accounts/{account['sid']}.json",
        auth=(known["account_sid"], known["auth_token"]),
        data={"Status": status},
        timeout=timeout,
        trust_env=False,
    )


def status_of(sandbox, account) -> str:
    return sandbox.control("GET", f"/twilio/subaccounts/{account['sid']}")["status"]


SUSPENDING = {"method": "POST", "path_contains": "/Accounts/", "form": {"Status": "suspended"}}


def test_held_request_takes_effect_after_its_sender_gave_up(sandbox, account):
    # Given that suspensions are held back / When one is sent and its sender gives up
    fault = sandbox.fault("twilio", "hold", match=SUSPENDING, times=1)
    with pytest.raises(httpx.ReadTimeout):
        set_status(sandbox, account, "suspended", timeout=0.3)
    # Then it has had no effect, and others pass
    assert sandbox.fault_now(fault)["held"] == 1
    assert status_of(sandbox, account) == "active"
    assert set_status(sandbox, account, "active").status_code == 200
    # When it is released / Then it has taken effect by the time of the answer
    assert sandbox.control("POST", f"/faults/{fault}/release") == {"released": 1}
    assert status_of(sandbox, account) == "suspended"
    assert sandbox.fault_now(fault)["hits"] == 1


def test_held_request_is_answered_if_its_sender_waits(sandbox, account):
    fault = sandbox.fault("twilio", "hold", match=SUSPENDING)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(set_status, sandbox, account, "suspended")
        assert wait_until(
            lambda: sandbox.fault_now(fault)["held"] == 1, limit_seconds=SANDBOX_SECONDS
        )
        sandbox.control("POST", f"/faults/{fault}/release")
        assert answer.result(SANDBOX_SECONDS).json()["status"] == "suspended"


def test_held_request_is_dropped_when_its_fault_is_removed(sandbox, account):
    fault = sandbox.fault("twilio", "hold")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(set_status, sandbox, account, "suspended")
        assert wait_until(
            lambda: sandbox.fault_now(fault)["held"] == 1, limit_seconds=SANDBOX_SECONDS
        )
        sandbox.control("DELETE", f"/faults/{fault}")
        assert isinstance(answer.exception(SANDBOX_SECONDS), httpx.RemoteProtocolError)
    assert status_of(sandbox, account) == "active"


@pytest.mark.parametrize(("kind", "after"), [("act_then_drop", "suspended"), ("drop", "active")])
def test_dropped_connection_hides_whether_the_request_took_effect(sandbox, account, kind, after):
    sandbox.fault("twilio", kind, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        set_status(sandbox, account, "suspended")
    assert status_of(sandbox, account) == after
    # Then the fault is used up
    assert set_status(sandbox, account, "suspended").status_code == 200


def test_request_takes_effect_although_it_is_never_answered(sandbox, account):
    sandbox.fault("twilio", "act_then_timeout", seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        set_status(sandbox, account, "suspended", timeout=0.3)
    assert status_of(sandbox, account) == "suspended"


def test_delay_and_refusal_faults_reach_the_client(sandbox, account):
    slow = sandbox.fault("twilio", "delay", seconds=0.3, times=1)
    start = time.monotonic()
    assert set_status(sandbox, account, "suspended").status_code == 200
    assert time.monotonic() - start >= 0.3 and sandbox.fault_now(slow)["hits"] == 1
    sandbox.fault("twilio", "status", status=429, headers={"Retry-After": "7"})
    answer = set_status(sandbox, account, "active")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["code"] == 20429
    assert status_of(sandbox, account) == "suspended"


def test_journal_lists_requests_and_contains_no_secret(sandbox, account, paypal):
    assert sandbox.requests(provider="twilio") == []
    set_status(sandbox, account, "suspended")
    (entry,) = sandbox.requests(provider="twilio", path_contains=account["sid"])
    assert (entry["method"], entry["form"], entry["status"]) == (
        "POST",
        {"Status": "suspended"},
        200,
    )
    everything = sandbox.http.get("/_control/requests").text
    for secret in ("client_secret", "auth_token"):
        for provider in ("paypal", "twilio"):
            assert sandbox.info[provider].get(secret, "no such secret") not in everything
    paypal.get("/v1/nowhere")
    assert sandbox.requests(provider="paypal", path_contains="/v1/nowhere")[0]["status"] == 404
