"""Calls at the sandbox's Vapi: started, watched, and ended at Vapi or at Twilio."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from base.clock import wait_until
from tests.support.sandbox import SANDBOX_SECONDS, RunningSandbox


def start_call(sandbox: RunningSandbox, **more: object) -> dict:
    return sandbox.control("POST", "/vapi/calls", {"organization_id": "org_a", **more})


def notify_in(sandbox: RunningSandbox, number: dict, **more: object) -> dict:
    asked = {"direction": "inbound", "number_id": number["id"], **more}
    return sandbox.control("POST", "/vapi/calls", asked)


def seen(sandbox: RunningSandbox, call: dict) -> dict:
    """Return everything that happened to a call, as only the stand-in knows it."""
    return sandbox.control("GET", f"/vapi/calls/{call['id']}")


def api(sandbox: RunningSandbox, method: str, path: str, body: dict | None = None):
    headers = {"Authorization": f"Bearer {sandbox.info['vapi']['api_key']}"}
    return sandbox.http.request(method, f"/vapi{path}", headers=headers, json=body)


def read_call(sandbox: RunningSandbox, call: dict) -> dict:
    return api(sandbox, "GET", f"/call/{call['id']}").json()


def wait_for_status(sandbox: RunningSandbox, call: dict, status: str) -> dict:
    assert wait_until(
        lambda: read_call(sandbox, call)["status"] == status, limit_seconds=SANDBOX_SECONDS
    ), seen(sandbox, call)
    return read_call(sandbox, call)


def order(sandbox: RunningSandbox, call: dict, **order: object):
    """Send an order to the control URL of a call."""
    return sandbox.http.post(urlsplit(call["monitor"]["controlUrl"]).path, json=order)


def leg_path(call: dict, account_sid: str) -> str:
    sid = call["phoneCallProviderId"]
    return f"/twilio/2010-04-01/Accounts/{account_sid}/Calls/{sid}.json"


def read_leg(sandbox: RunningSandbox, call: dict, account_sid: str) -> dict:
    return sandbox.http.get(leg_path(call, account_sid), auth=parent(sandbox)).json()


def end_leg(
    sandbox: RunningSandbox, call: dict, account_sid: str, status: str = "completed"
) -> float:
    """End the leg at Twilio with the parent's key.

    Return the monotonic time of the answer.
    """
    answer = sandbox.http.post(
        leg_path(call, account_sid), auth=parent(sandbox), data={"Status": status}
    )
    assert answer.status_code == 200, answer.text
    return time.monotonic()


def parent(sandbox: RunningSandbox) -> tuple[str, str]:
    return sandbox.info["twilio"]["account_sid"], sandbox.info["twilio"]["auth_token"]
