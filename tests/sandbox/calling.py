"""Calls at the sandbox's Vapi: started, watched, and ended at Vapi or at Twilio."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from base.clock import wait_until
from tests.support.sandbox import SANDBOX_SECONDS, House


def start_call(house: House, **more: object) -> dict:
    return house.control("POST", "/vapi/calls", {"organization_id": "org_a", **more})


def notify_in(house: House, number: dict, **more: object) -> dict:
    asked = {"direction": "inbound", "number_id": number["id"], **more}
    return house.control("POST", "/vapi/calls", asked)


def seen(house: House, call: dict) -> dict:
    """Return everything that happened to a call, as only the stand-in knows it."""
    return house.control("GET", f"/vapi/calls/{call['id']}")


def api(house: House, method: str, path: str, body: dict | None = None):
    headers = {"Authorization": f"Bearer {house.info['vapi']['api_key']}"}
    return house.http.request(method, f"/vapi{path}", headers=headers, json=body)


def read_call(house: House, call: dict) -> dict:
    return api(house, "GET", f"/call/{call['id']}").json()


def wait_for_status(house: House, call: dict, status: str) -> dict:
    assert wait_until(
        lambda: read_call(house, call)["status"] == status, limit_seconds=SANDBOX_SECONDS
    ), seen(house, call)
    return read_call(house, call)


def order(house: House, call: dict, **order: object):
    """Send an order to the control address of a call."""
    return house.http.post(urlsplit(call["monitor"]["controlUrl"]).path, json=order)


def leg_path(call: dict, account_sid: str) -> str:
    sid = call["phoneCallProviderId"]
    return f"/twilio/2010-04-01/Accounts/{account_sid}/Calls/{sid}.json"


def read_leg(house: House, call: dict, account_sid: str) -> dict:
    return house.http.get(leg_path(call, account_sid), auth=parent(house)).json()


def end_leg(house: House, call: dict, account_sid: str, status: str = "completed") -> float:
    """End the leg at Twilio with the parent's key.

    Return the monotonic time of the answer.
    """
    answer = house.http.post(
        leg_path(call, account_sid), auth=parent(house), data={"Status": status}
    )
    assert answer.status_code == 200, answer.text
    return time.monotonic()


def parent(house: House) -> tuple[str, str]:
    return house.info["twilio"]["account_sid"], house.info["twilio"]["auth_token"]
