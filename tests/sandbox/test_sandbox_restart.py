"""The state folder: what a restart keeps, and a file that it cannot use."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest

from base.clock import wait_until
from local import ROOT
from tests.sandbox.calling import api, order, parent, read_call, seen, wait_for_status
from tests.support.sandbox import SANDBOX_SECONDS, RunningSandbox, start, stop

TWILIO = "/twilio/2010-04-01/Accounts"


@pytest.fixture
def sandbox(tmp_path):
    """A sandbox with a file for its state."""
    made = start(tmp_path, "--keep")
    yield made
    if made.process.poll() is None:
        stop(made)


def restart(
    sandbox: RunningSandbox, folder, target: str = "", signal_number=signal.SIGKILL
) -> None:
    """End the process by the signal, and start another one with its folder."""
    sandbox.process.send_signal(signal_number)
    sandbox.process.wait(SANDBOX_SECONDS)
    sandbox.http.close()
    again = start(folder, "--keep", *(("--target", target) if target else ()))
    sandbox.process, sandbox.http, sandbox.info = again.process, again.http, again.info


def paypal_headers(sandbox: RunningSandbox) -> dict[str, str]:
    known = sandbox.info["paypal"]
    answer = sandbox.http.post(
        "/paypal/v1/oauth2/token",
        auth=(known["client_id"], known["client_secret"]),
        data={"grant_type": "client_credentials"},
    )
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def stripe_post(sandbox: RunningSandbox, path: str, form: dict, key: str) -> dict:
    headers = {"Authorization": f"Bearer {sandbox.info['stripe']['api_key']}"}
    return sandbox.http.post(
        f"/stripe{path}", data=form, headers=headers | {"Idempotency-Key": key}
    ).json()


def post(sandbox: RunningSandbox, path: str, **asked: object) -> dict:
    """Change something at the control plane, without a webhook."""
    return sandbox.control("POST", path, {"deliver": False, **asked})


def make_one_of_each(sandbox: RunningSandbox) -> dict[str, str]:
    """Make each kind of resource, and change each that can change. Return their IDs."""
    headers = paypal_headers(sandbox)
    ids = {}

    def ask_paypal(path: str, **body: object) -> dict:
        return sandbox.http.post(
            f"/paypal{path}", json=body, headers=headers | {"PayPal-Request-Id": "r1"}
        ).json()

    ids["subscription"] = ask_paypal("/v1/billing/subscriptions", plan_id="P-1")["id"]
    post(sandbox, f"/paypal/subscriptions/{ids['subscription']}/status", status="SUSPENDED")
    for name in ("refunded", "disputed"):
        ids[name] = post(sandbox, "/paypal/captures", organization_id="org_a", value="10.00")["id"]
    ids["refund"] = ask_paypal(
        f"/v2/payments/captures/{ids['refunded']}/refund",
        amount={"value": "1.00", "currency_code": "USD"},
    )["id"]
    post(sandbox, f"/paypal/refunds/{ids['refund']}/status", status="FAILED")
    dispute = post(sandbox, "/paypal/disputes", capture_id=ids["disputed"])["dispute_id"]
    post(sandbox, f"/paypal/disputes/{dispute}/resolve", outcome_code="RESOLVED_SELLER_FAVOUR")
    ids["dispute"] = dispute
    asked = {"event_type": "BILLING.SUBSCRIPTION.UPDATED", "organization_id": "org_b"}
    (sent,) = post(sandbox, "/paypal/events", **asked)
    ids["event"] = sent["event_id"]

    ids["subaccount"] = sid = post(sandbox, "/twilio/subaccounts")["sid"]
    post(sandbox, f"/twilio/subaccounts/{sid}", status="suspended", roll_token=True)
    post(sandbox, f"/twilio/subaccounts/{sid}", status="active")
    parent_sid = sandbox.info["twilio"]["account_sid"]
    post(sandbox, f"/twilio/subaccounts/{parent_sid}", roll_token=True)
    sandbox.info = sandbox.control("GET", "/info")
    ids["leg"] = post(sandbox, "/twilio/calls", sid=sid)["sid"]
    form = {"To": "+15005550006", "From": "+15005550001", "Body": "Hello"}
    sandbox.http.post(f"{TWILIO}/{sid}/Messages.json", auth=parent(sandbox), data=form)

    ids["assistant"] = post(sandbox, "/vapi/assistants")["id"]
    ids["number"] = post(sandbox, "/vapi/numbers", twilio_sid=sid, assistant_id=ids["assistant"])[
        "id"
    ]
    call = post(sandbox, "/vapi/calls", number_id=ids["number"], talk_seconds=0)
    wait_for_status(sandbox, call, "ended")
    ids["call"] = call["id"]

    form = {"customer": "cus_1", "items[0][price]": "price_1"}
    ids["stripe"] = stripe_post(sandbox, "/v1/subscriptions", form, "k1")["id"]
    post(sandbox, f"/stripe/subscriptions/{ids['stripe']}/status", status="past_due")
    ids["session"] = post(sandbox, "/stripe/sessions", organization_id="org_a", amount=500)["id"]
    return ids


def shown(sandbox: RunningSandbox, ids: dict[str, str]) -> dict[str, object]:
    """Read everything that was made."""
    headers = paypal_headers(sandbox)
    stripe = {"Authorization": f"Bearer {sandbox.info['stripe']['api_key']}"}
    account = f"{TWILIO}/{ids['subaccount']}"
    paths = {
        **{f"/_control/paypal/{kind}": {} for kind in ("subscriptions", "captures")},
        f"/_control/paypal/events/{ids['event']}": {},
        f"/paypal/v2/payments/refunds/{ids['refund']}": headers,
        f"/paypal/v1/customer/disputes/{ids['dispute']}": headers,
        f"/stripe/v1/subscriptions/{ids['stripe']}": stripe,
        f"/stripe/v1/checkout/sessions/{ids['session']}": stripe,
        "/stripe/v1/events": stripe,
    }
    found = {path: sandbox.http.get(path, headers=sent).json() for path, sent in paths.items()}
    for path in (f"{account}.json", f"{account}/Calls.json", f"{account}/Messages.json"):
        found[path] = sandbox.http.get(path, auth=parent(sandbox)).json()
    history = sandbox.control("GET", f"/twilio/subaccounts/{ids['subaccount']}")["history"]
    call = {
        name: value
        for name, value in seen(sandbox, {"id": ids["call"]}).items()
        # These are monotonic; a restart converts them.
        if name not in ("made", "began", "ended", "seconds")
    }
    return found | {
        "history": history,
        "call": call,
        "token": parent(sandbox),
        "numbers": api(sandbox, "GET", "/phone-number").json(),
        "assistants": api(sandbox, "GET", "/assistant").json(),
    }


def test_restart_keeps_every_resource_as_it_was(sandbox, tmp_path):
    # Given one of each, changed
    ids = make_one_of_each(sandbox)
    before = shown(sandbox, ids)
    assert len(before["/stripe/v1/events"]["data"]) == 1

    # When the process is killed, and then stopped / Then everything is as it was
    for signal_number in (signal.SIGKILL, signal.SIGTERM):
        restart(sandbox, tmp_path, signal_number=signal_number)
        assert shown(sandbox, ids) == before

    # And the same requests make nothing new
    headers = paypal_headers(sandbox) | {"PayPal-Request-Id": "r1"}
    for path, name in (
        ("/v1/billing/subscriptions", "subscription"),
        (f"/v2/payments/captures/{ids['refunded']}/refund", "refund"),
    ):
        again = sandbox.http.post(f"/paypal{path}", json={"plan_id": "P-1"}, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, ids[name])
    form = {"customer": "cus_1", "items[0][price]": "price_1"}
    assert stripe_post(sandbox, "/v1/subscriptions", form, "k1")["id"] == ids["stripe"]
    assert shown(sandbox, ids) == before

    # And the newest payment is still the newest
    (sent,) = post(
        sandbox,
        "/paypal/events",
        event_type="PAYMENT.CAPTURE.COMPLETED",
        organization_id="org_a",
        event_id="WH-1",
    )
    assert ids["disputed"] in sandbox.control("GET", f"/paypal/events/{sent['event_id']}")["body"]

    # When everything is forgotten / Then the file forgets it too
    sandbox.control("POST", "/reset")
    restart(sandbox, tmp_path)
    assert sandbox.control("GET", "/paypal/captures") == []


def test_event_is_kept_before_it_is_delivered(sandbox, listener, tmp_path):
    # Given a receiver that kills the sandbox before it answers
    received = listener.answer

    def answer_and_kill(request):
        sandbox.process.kill()
        return received(request)

    listener.answer = answer_and_kill
    # When a payment is reported
    asked = {"event_type": "PAYMENT.CAPTURE.COMPLETED", "organization_id": "org_a"}
    with pytest.raises(Exception, match=r"disconnected|reset|closed"):
        sandbox.control("POST", "/paypal/events", asked)
    listener.answer = received
    restart(sandbox, tmp_path, listener.url)
    # Then the sandbox still knows the payment that the receiver has heard of
    body = listener.wait_for(1)[0].body
    (capture,) = sandbox.control("GET", "/paypal/captures")
    assert capture["id"].encode() in body


def test_live_calls_continue_and_end_in_time_after_a_restart(sandbox, listener, tmp_path):
    # Given a call without an end, one that talks for a second, and a call at Twilio
    account = post(sandbox, "/twilio/subaccounts")["sid"]
    number = post(sandbox, "/vapi/numbers", twilio_sid=account, leg_callback_url="")["id"]
    endless, short = (
        sandbox.control(
            "POST",
            "/vapi/calls",
            {"number_id": number, "organization_id": "o", "talk_seconds": talk},
        )
        for talk in (None, 1)
    )
    started = [wait_for_status(sandbox, call, "in-progress") for call in (endless, short)]

    # When the sandbox is killed, and is away until the second call is over
    sandbox.process.kill()
    away = time.monotonic()
    assert wait_until(lambda: time.monotonic() - away > 1.2, limit_seconds=10)
    restart(sandbox, tmp_path, listener.url)

    # Then the first continues, and is ended by an order
    assert read_call(sandbox, endless) == started[0]
    assert order(sandbox, endless, type="end-call").status_code == 200
    ended = wait_for_status(sandbox, endless, "ended")
    assert (ended["startedAt"], ended["endedReason"]) == (
        started[0]["startedAt"],
        "manually-canceled",
    )
    # And the second has ended after its second, not later
    over = wait_for_status(sandbox, short, "ended")
    assert over["endedReason"] == "customer-ended-call"
    seconds = datetime.fromisoformat(over["endedAt"]) - datetime.fromisoformat(over["startedAt"])
    assert seconds.total_seconds() == pytest.approx(1, abs=0.1)
    # And both are reported, their legs are over, and Twilio reports it
    for call, length in ((ended, None), (over, 1)):
        (report,) = listener.wait_for_message(call["id"], "end-of-call-report")
        assert length is None or report["durationSeconds"] == pytest.approx(length, abs=0.01)
        path = f"{TWILIO}/{account}/Calls/{call['phoneCallProviderId']}.json"
        assert sandbox.http.get(path, auth=parent(sandbox)).json()["status"] == "completed"
        sid = call["phoneCallProviderId"].encode()
        assert wait_until(
            lambda sid=sid: any(
                sid in one.body and b"CallStatus=completed" in one.body for one in listener.received
            ),
            limit_seconds=SANDBOX_SECONDS,
        )


def test_unusable_file_is_refused_in_a_line_that_names_the_way_out(tmp_path):
    # Given a damaged file
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database " * 400)
    # When the sandbox starts / Then it says so in a line, and changes nothing
    refused = subprocess.run(
        [sys.executable, "-m", "sandbox", "--state", str(tmp_path), "--keep"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"sandbox: cannot use {path}: file is not a database;"
        " delete this file to start with an empty sandbox\n"
    )
    assert path.read_bytes() == b"not a database " * 400
    # When the file is deleted / Then it starts
    path.unlink()
    assert stop(start(tmp_path, "--keep")) == 0
