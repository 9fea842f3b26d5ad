"""Calls and messages in Vapi's format; `without` leaves fields out."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from providers.vapi import events as messages
from providers.vapi.events import VapiMessage

CALL = "019d0000-0000-7000-8000-000000000003"
LEG = "CA" + "1" * 32
ACCOUNT = "AC" + "2" * 32
STARTED, ENDED = "2026-05-04T10:00:05.000Z", "2026-05-04T10:02:12.598Z"
#: The same start, in milliseconds since 1970.
STARTED_MS = 1_777_888_805_000


def call(without: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    made = {
        "id": CALL,
        "orgId": "6f6a2d1e-9a63-4b0f-9d67-2c0f6d0a1b11",
        "type": "outboundPhoneCall",
        "status": "in-progress",
        "phoneCallProviderId": LEG,
        "phoneNumberId": "number-1",
        "assistantId": "assistant-1",
        "customer": {"number": "+15005550006"},
        "assistantOverrides": {
            "metadata": {"holdfast_organization": "org_1", "holdfast_call": "call_1"}
        },
        "startedAt": STARTED,
        **more,
    }
    return {name: value for name, value in made.items() if name not in without}


def report(without: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """Build a whole end-of-call-report, whose copy of the call has ended."""
    made = {
        "type": "end-of-call-report",
        "timestamp": STARTED_MS + 200_000,
        "endedReason": "customer-ended-call",
        "startedAt": STARTED,
        "endedAt": ENDED,
        "cost": Decimal("0.1931"),
        "durationSeconds": Decimal("127.598"),
        "call": call(status="ended"),
        **more,
    }
    return {name: value for name, value in made.items() if name not in without}


def status_update(status: object = "in-progress", **more: Any) -> dict[str, Any]:
    return {
        "type": "status-update",
        "timestamp": STARTED_MS + 5_000,
        "status": status,
        "call": call(),
        **more,
    }


def written(message: dict[str, Any]) -> bytes:
    """Encode a message; its Decimals become JSON numbers."""
    numbers: list[str] = []

    def number(value: Decimal) -> str:
        numbers.append(str(value))
        return f"\x00{len(numbers) - 1}\x00"

    text = json.dumps({"message": message}, default=number)
    for at, one in enumerate(numbers):
        text = text.replace(json.dumps(f"\x00{at}\x00"), one)
    return text.encode()


def parsed(message: dict[str, Any]) -> VapiMessage:
    return messages.parse(written(message))
