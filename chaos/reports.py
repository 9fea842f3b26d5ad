"""Reports of ended calls at the sandbox's Vapi, sent until they are accepted.

Vapi is configured to repeat a report that was not answered 2xx (a backoffPlan). Without that, a
call whose messages were all lost would stay unknown, unless the product already knew its ID.
"""

from __future__ import annotations

import time
from typing import Any

from base.clock import wait_until
from chaos.deliveries import DeliveryQueue
from chaos.scene import Scene

_POLL_SECONDS = 0.4


class CallNotEnded(Exception):
    """A call at the sandbox's Vapi did not end within the limit."""


def wait_for_end(deliveries: DeliveryQueue, vapi_id: str, limit_seconds: float) -> dict[str, Any]:
    """Wait until a call has ended, and return Vapi's record of it.

    Raises: CallNotEnded if the limit passes first. The thread then dies, and the run counts that
    as lost.
    """
    record: dict[str, Any] = {}

    def has_ended() -> bool:
        record.update(read_record(deliveries, vapi_id))
        return bool(record["status"] == "ended")

    if not wait_until(has_ended, limit_seconds=limit_seconds, every_seconds=_POLL_SECONDS):
        raise CallNotEnded(f"{vapi_id} is {record['status']} after {limit_seconds:g} s")
    return record


def read_record(deliveries: DeliveryQueue, vapi_id: str) -> dict[str, Any]:
    """Return Vapi's record of a call, as the sandbox shows it."""
    answer = deliveries.http.get(f"/vapi/calls/{vapi_id}")
    answer.raise_for_status()
    record: dict[str, Any] = answer.json()["call"]
    return record


def send_report(scene: Scene, vapi_id: str, fields: dict[str, Any]) -> bool:
    """Have Vapi send a report of an ended call until it is accepted.

    Return False if the traffic stops and gives up first.
    """
    body = {"type": "end-of-call-report", "call_id": vapi_id, "fields": fields}
    while not scene.has_given_up:
        (delivery,) = scene.deliveries.control("POST", "/vapi/messages", body)
        if delivery["status_code"] is not None and 200 <= delivery["status_code"] < 300:
            return True
        time.sleep(_POLL_SECONDS)
    return False
