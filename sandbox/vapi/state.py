"""Vapi's state: phone numbers, assistants, and calls that run in real time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal
from uuid import uuid4

from sandbox.exchange import Json, iso_ms
from sandbox.store import Shelf
from sandbox.vapi.behaviour import Behaviour
from sandbox.vapi.calls import LiveCall, PhoneNumber, pack_call, unpack_call

#: Maximum duration of a call, in seconds: the default of an assistant without one, and the bounds.
LONGEST_SECONDS_DEFAULT = 600
LONGEST_SECONDS_MIN, LONGEST_SECONDS_MAX = 10, 43_200


@dataclass(frozen=True)
class Authentication:
    """How server messages are authenticated. Vapi lets its customer choose."""

    mode: Literal["bearer", "x-vapi-secret", "hmac", "none"] = "bearer"
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    #: Vapi's pages name no unit of the timestamp, so a client must accept both.
    timestamp_unit: Literal["ms", "seconds"] = "ms"


class VapiState:
    """Vapi's resources by Vapi's IDs, and its settings."""

    def __init__(self) -> None:
        self.numbers: Shelf[PhoneNumber] = Shelf("vapi.numbers", asdict, _unpack_number)
        self.assistants: Shelf[Json] = Shelf("vapi.assistants")
        self.calls: Shelf[LiveCall] = Shelf("vapi.calls", pack_call, self._unpack_call)
        # A restart resets the behaviour and the authentication to their defaults.
        self.behaviour = Behaviour()
        self.authentication = Authentication()
        self.account_id = str(uuid4())

    def shelves(self) -> list[Shelf[Any]]:
        """List the resources that a restart keeps; numbers before the calls that use them."""
        return [self.numbers, self.assistants, self.calls]

    def add_assistant(self, name: str, longest_seconds: int, server_url: str) -> Json:
        """Create an assistant."""
        shown = self._resource_fields() | {"name": name, "maxDurationSeconds": longest_seconds}
        if server_url:
            shown["server"] = {"url": server_url}
        self.assistants[shown["id"]] = shown
        return shown

    def add_number(
        self,
        number: str,
        twilio_sid: str,
        assistant_id: str,
        server_url: str,
        leg_callback_url: str | None,
    ) -> PhoneNumber:
        """Import a phone number. If it has an assistant, no assistant-request is sent."""
        shown = self._resource_fields() | {
            "provider": "twilio",
            "number": number,
            "status": "active",
        }
        if twilio_sid:
            shown["twilioAccountSid"] = twilio_sid
        if assistant_id:
            shown["assistantId"] = assistant_id
        if server_url:
            shown["server"] = {"url": server_url}
        phone_number = self.numbers[shown["id"]] = PhoneNumber(shown, leg_callback_url)
        return phone_number

    def add_call(
        self,
        base_url: str,
        kind: Literal["inboundPhoneCall", "outboundPhoneCall"],
        customer: str,
        number: PhoneNumber | None,
    ) -> LiveCall:
        """Create a call that is not yet connected with an assistant."""
        shown = self._resource_fields()
        call_url = f"{base_url}/call/{shown['id']}"
        shown |= {
            "type": kind,
            "status": "ringing" if kind == "inboundPhoneCall" else "queued",
            "phoneCallProvider": "twilio",
            "phoneCallProviderId": f"CA{uuid4().hex}",
            "phoneCallTransport": "pstn",
            "customer": {"number": customer},
            "monitor": {"listenUrl": f"{call_url}/listen", "controlUrl": f"{call_url}/control"},
        }
        if number is not None:
            shown["phoneNumberId"] = number.shown["id"]
        call = self._save_changes_of(LiveCall(shown, LONGEST_SECONDS_DEFAULT, number=number))
        self.calls[shown["id"]] = call
        return call

    def connect(self, call: LiveCall, assistant: Json | None, overrides: Json) -> None:
        """Set the call's assistant and the overrides of that assistant.

        The organization's ID is in assistantOverrides.metadata, because a call at Vapi has no
        metadata of its own.
        """
        if assistant is not None and "id" in assistant:
            call.shown["assistantId"] = assistant["id"]
        elif assistant is not None:
            call.shown["assistant"] = assistant
        if overrides:
            call.shown["assistantOverrides"] = overrides
        longest_seconds = overrides.get(
            "maxDurationSeconds", (assistant or {}).get("maxDurationSeconds")
        )
        call.longest_seconds = (
            LONGEST_SECONDS_DEFAULT if longest_seconds is None else longest_seconds
        )
        number = {} if call.number is None else call.number.shown
        # The assistant's server address takes precedence over the number's. The ingress is the
        # default.
        server = (assistant or {}).get("server") or number.get("server") or {}
        call.server_url = server.get("url", "")

    def behaviour_of(self, call: LiveCall) -> Behaviour:
        """Return the behaviour of all calls, with the changes that were set for this call."""
        return self.behaviour.model_copy(update=call.behaviour)

    def _save_changes_of(self, call: LiveCall) -> LiveCall:
        call.changed = partial(self.calls.note, call.shown["id"])
        return call

    def _unpack_call(self, packed: Json) -> LiveCall:
        return self._save_changes_of(unpack_call(packed, self.numbers))

    def _resource_fields(self) -> Json:
        now = iso_ms()
        return {"id": str(uuid4()), "orgId": self.account_id, "createdAt": now, "updatedAt": now}


def _unpack_number(packed: Json) -> PhoneNumber:
    return PhoneNumber(**packed)


def is_allowed_duration(value: object) -> bool:
    """Return whether Vapi accepts a value as maxDurationSeconds."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and LONGEST_SECONDS_MIN <= value <= LONGEST_SECONDS_MAX
    )


def epoch_ms() -> int:
    """Return the current time in milliseconds, as the messages have it."""
    return int(datetime.now(UTC).timestamp() * 1000)
