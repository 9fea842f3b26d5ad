"""The envelope around every PayPal event, read strictly; what its resource means is events.py's."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, NamedTuple

from providers.errors import MalformedWebhook
from providers.instants import instant_of

_EVENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: The longest in PayPal's list has 57 characters (CUSTOMER.MERCHANT-INTEGRATION.…).
_EVENT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Envelope(NamedTuple):
    """What every event has; `resource` is empty when the event has none."""

    external_id: str
    event_type: str
    #: The event's own create_time; None when it is missing or junk.
    occurred_at: datetime | None
    resource: dict[str, Any]


def read(body: bytes) -> Envelope:
    """This function will read an event's envelope from the bytes received.

    Raises: MalformedWebhook when it is no JSON object, names a key twice at any depth (two readers
    could then see two events), or has no plain id and event_type.
    """
    event = _strict_object(body)
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


def _strict_object(body: bytes) -> dict[str, Any]:
    try:
        value = _STRICT.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedWebhook("the body is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedWebhook("the body is not a JSON object")
    return value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedWebhook("the body names a key twice")
    return members


def _no_constant(name: str) -> Any:
    raise MalformedWebhook(f"{name} is not JSON")


#: Made once: json.loads would make one for every body.
_STRICT = json.JSONDecoder(object_pairs_hook=_each_key_once, parse_constant=_no_constant)
