"""Reads only the needed members of Vapi's large JSON bodies.

A report contains the whole conversation, and a browser may put anything into a call's metadata, so
a body can have megabytes. Members that no rule reads are dropped while parsing, and are not stored.
Every member that the rules read must be listed below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from providers.vapi.fields import each_key_once, read_with, strict_decoder

#: Messages with more bytes than this are read and stored in this reduced form.
LEAN_FROM_BYTES = 65_536
#: The prefix of our own members in a call's metadata, and how many of them are kept at most.
_OUR_PREFIX = "holdfast_"
_OUR_MEMBERS_MAX = 32
#: A text is cut to this many characters. That is longer than any text that the rules accept.
_TEXT_LENGTH_MAX = 1_000

#: The needed members by name: None for a plain value, or the needed members of an object.
_Tree = Mapping[str, "_Tree | None"]


def _plain_values(names: str) -> dict[str, _Tree | None]:
    return dict.fromkeys(names.split())


_PARTY_MEMBERS = _plain_values("id number twilioAccountSid")
_PROGRESS_MEMBERS = _plain_values("status startedAt endedAt endedReason durationSeconds cost")
_METADATA_MEMBERS: _Tree = {_OUR_PREFIX: None}
_CALL_MEMBERS: _Tree = {
    **_PROGRESS_MEMBERS,
    **_plain_values("id type assistantId phoneNumberId phoneCallProviderId campaignId"),
    "phoneNumber": _PARTY_MEMBERS,
    "customer": _PARTY_MEMBERS,
    "assistantOverrides": {"metadata": _METADATA_MEMBERS},
    "monitor": _plain_values("controlUrl"),
}
_MESSAGE_MEMBERS: _Tree = {
    **_PROGRESS_MEMBERS,
    **_plain_values("type timestamp assistantId phoneNumberId campaignId"),
    "call": _CALL_MEMBERS,
    "phoneNumber": _PARTY_MEMBERS,
    "customer": _PARTY_MEMBERS,
    "contact": _PARTY_MEMBERS,
    "campaign": _plain_values("id assistantId phoneNumberId"),
}
_ENVELOPE_MEMBERS: _Tree = {"message": _MESSAGE_MEMBERS}


def read_message(body: bytes) -> dict[str, Any]:
    """Read a server message's envelope, reduced to what the rules read.

    Raises: ValueError, as fields.read_object.
    """
    return _reduce(read_with(_LEAN_DECODER, body), _ENVELOPE_MEMBERS)


def read_call(body: bytes) -> dict[str, Any]:
    """Read a call object, reduced to what the rules read. Raises: as read_message."""
    return _reduce(read_with(_LEAN_DECODER, body), _CALL_MEMBERS)


def write(value: object) -> bytes:
    """Serialize a value that was read here; a number keeps its text."""
    return _json_of(value).encode()


def _reduce(members: Mapping[str, Any], tree: _Tree) -> dict[str, Any]:
    if tree is _METADATA_MEMBERS:
        our_names = [name for name in members if name.startswith(_OUR_PREFIX)][:_OUR_MEMBERS_MAX]
        return {name: _reduce_value(members[name], None) for name in our_names}
    return {name: _reduce_value(members[name], tree[name]) for name in tree if name in members}


def _reduce_value(value: Any, tree: _Tree | None) -> Any:
    if isinstance(value, dict):
        return _reduce(value, tree or {})
    # No rule reads a list. An empty list replaces the list, so that its type is still invalid.
    return [] if isinstance(value, list) else value


def _names_in(tree: _Tree) -> set[str]:
    names = set(tree)
    for inner in tree.values():
        names |= _names_in(inner or {})
    return names


_NEEDED_NAMES = frozenset(_names_in(_ENVELOPE_MEMBERS))


def _drop_unneeded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Drop unneeded members of each object at once, so that memory use stays small."""
    members = each_key_once(pairs)
    return {
        name: value[:_TEXT_LENGTH_MAX] if isinstance(value, str) else value
        for name, value in members.items()
        if name in _NEEDED_NAMES or name.startswith(_OUR_PREFIX)
    }


_LEAN_DECODER = strict_decoder(_drop_unneeded)


def _json_of(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_json_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value)
