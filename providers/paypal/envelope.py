"""Parse the members that all PayPal events share. `events.py` interprets them."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, NamedTuple

from providers.errors import MalformedWebhook
from providers.instants import instant_of

_EVENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: The longest type in PayPal's list has 57 characters (CUSTOMER.MERCHANT-INTEGRATION...).
_EVENT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Envelope(NamedTuple):
    """The members that every event has. `resource` is empty if the event has none."""

    external_id: str
    event_type: str
    #: The event's own create_time; None if it is missing or invalid.
    occurred_at: datetime | None
    resource: dict[str, Any]


def read_envelope(body: bytes) -> Envelope:
    """Read an event's envelope from the received bytes.

    Raises: MalformedWebhook if the body is not a JSON object, or repeats a key at any depth.
    Parsers differ in which value of a repeated key they use, so two readers could see two different
    events. Also if `id` or `event_type` is missing or does not match its pattern above.
    """
    event = _read_object(body)
    external_id, event_type = event.get("id"), event.get("event_type")
    if not isinstance(external_id, str) or not _EVENT_ID.fullmatch(external_id):
        raise MalformedWebhook("the event has no plain id")
    if not isinstance(event_type, str) or not _EVENT_TYPE.fullmatch(event_type):
        raise MalformedWebhook("the event has no plain event_type")
    resource = event.get("resource")
    return Envelope(
        external_id=external_id,
        event_type=event_type,
        occurred_at=instant_of(event.get("create_time")),
        resource=resource if isinstance(resource, dict) else {},
    )


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = _STRICT_DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedWebhook("the body is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedWebhook("the body is not a JSON object")
    return value


def _reject_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedWebhook("the body names a key twice")
    return members


def _reject_constant(name: str) -> Any:
    raise MalformedWebhook(f"{name} is not JSON")


#: One decoder for all bodies: json.loads would make a new one for each.
_STRICT_DECODER = json.JSONDecoder(
    object_pairs_hook=_reject_repeated_keys, parse_constant=_reject_constant
)
