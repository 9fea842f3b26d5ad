"""Vapi messages of several megabytes: reduced to their facts, few read at once.

A refusal of a message that is too large raises an alert.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time

import pytest
from pydantic import SecretStr

from db.models import Alert, InboxEvent
from ingress.http.body import LARGE_BYTES, LargeBodies
from ingress.http.delivery import Delivery
from ingress.http.responses import HttpRefusal
from tests.ingress.calls.callers import send


def heavy(size: int) -> dict:
    """Build fields that make a message about `size` bytes large."""
    return {"artifact": {"messages": [{"role": "bot", "message": "x" * 900}] * (size // 930)}}


def alerts(world) -> list[Alert]:
    return [one for one in world.read(Alert) if one.kind == "event_too_large"]


def test_report_of_over_a_megabyte_settles_the_call(caller, world, ingress):
    # Given a call in progress
    update = caller.message("status-update", status="in-progress")
    send(ingress, update)
    # When its report carries the whole conversation
    report = caller.message(
        "end-of-call-report",
        update["call"]["id"],
        endedReason="customer-ended-call",
        durationSeconds=12.2,
        cost=0.25,
        **heavy(1_300_000),
    )
    verdicts = [send(ingress, report).json()["verdict"] for _ in range(2)]
    world.run_due()
    # Then it is accepted once, charged exactly, and stored without the conversation
    assert verdicts == ["new", "duplicate"]
    (call,) = caller.calls()
    assert (call.cost_micros, call.provider_cost_micros) == (130_000, 250_000)
    assert world.wallet(caller.id).balance_micros == 870_000
    stored = [one for one in world.read(InboxEvent) if one.event_type == "end-of-call-report"]
    assert [len(one.body) < 4_000 for one in stored] == [True]


def test_browser_call_with_a_megabyte_of_metadata_is_metered(caller, world, ingress):
    message = caller.message("status-update", status="in-progress")
    metadata = {f"key{number}": "x" * 90 for number in range(11_000)}
    message["call"] |= {"type": "webCall", "assistantOverrides": {"metadata": metadata}}
    assert send(ingress, message).json()["verdict"] == "new"
    world.run_due()
    (call,) = caller.calls()
    assert (call.status, call.metered_from is not None) == ("in_progress", True)


@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_refusal_of_a_too_large_vapi_body_is_alerted(caller, world, start_ingress, settings, size):
    # Given a limit, below and above the size that counts as large
    ingress = start_ingress(settings, vapi_bytes_max=size)
    message = caller.message("status-update", status="ringing", **heavy(size - 50_000))
    assert send(ingress, message).status_code == 200
    assert alerts(world) == []
    # When an authenticated sender exceeds it twice
    message = caller.message("status-update", status="ringing", **heavy(size + 50_000))
    for _ in range(2):
        assert send(ingress, message).status_code == 413
    # Then one alert is raised
    (alert,) = alerts(world)
    assert (alert.subject, alert.severity) == ("vapi", "critical")
    assert alert.details["bytes_max"] == size
    assert int(alert.details["declared_bytes"]) > size


def test_unverified_large_body_is_refused_unread_without_an_alert(ingress, world):
    # When an unknown sender declares a body of a gigabyte, or begins one of ten megabytes
    for length in (1_000_000_000, 10_000_000):
        answer = ingress.raw(
            "POST /webhooks/vapi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Authorization: Bearer wrong\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 401")
    assert alerts(world) == []


def test_signed_message_of_megabytes_is_verified(caller, world, start_ingress, settings):
    hmac_only = {"vapi_hmac_secret": SecretStr("signs"), "vapi_server_secret": SecretStr("")}
    ingress = start_ingress(settings.model_copy(update=hmac_only), vapi_bytes_max=3_000_000)

    def post(size: int, secret: str) -> int:
        message = caller.message("status-update", status="ringing", **heavy(size))
        body, at = json.dumps({"message": message}).encode(), int(time.time())
        signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "x-signature": signed,
            "x-timestamp": str(at),
        }
        return ingress.client.post("/webhooks/vapi", content=body, headers=headers).status_code

    assert post(2_000_000, "signs") == 200
    assert post(2_000_000, "another") == 401
    # A body above the limit is not read to its end, so its signature cannot be checked
    assert post(3_500_000, "signs") == 413
    assert alerts(world) == []


async def _nothing():
    return {"type": "http.disconnect"}


def delivery(**headers: str) -> Delivery:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Delivery({"type": "http", "headers": raw}, _nothing)


def test_large_bodies_are_limited_and_small_ones_never_wait():
    bodies = LargeBodies(at_once=2, wait_seconds=0.05)
    large = delivery(content_length=str(LARGE_BYTES + 1))

    async def enter(one: Delivery) -> bool:
        async with bodies.place(one) as is_large:
            return is_large

    async def work() -> None:
        async with bodies.place(large), bodies.place(delivery()):
            # A third large body waits, and is refused
            with pytest.raises(HttpRefusal) as refused:
                await enter(large)
            assert (refused.value.problem.code.status, refused.value.retry_after_seconds) == (
                503,
                5,
            )
            assert await enter(delivery(content_length=str(LARGE_BYTES))) is False
        # And once a place is free, a large body is read
        assert await enter(large) is True
        assert await enter(delivery()) is True

    asyncio.run(work())
