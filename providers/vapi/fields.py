"""JSON as Vapi sends it, read strictly: each key once, and no number by way of a float."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

#: A time from this number on is one in milliseconds: in seconds it would lie in the year 5138, and
#: one below it, in milliseconds, before March 1973.
MILLISECONDS_FROM = 10**11


def read_object(body: bytes) -> dict[str, Any]:
    """This function will read a JSON object in UTF-8; numbers with a point become Decimals.

    Raises: ValueError when it is none, or names a key twice at any depth (two readers could then
    see two messages).
    """
    try:
        value = _STRICT.decode(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def object_in(value: object) -> dict[str, Any]:
    """This function will give a member that is an object; an empty one if it is none."""
    return value if isinstance(value, dict) else {}


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is named twice")
    return members


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # An exponent that not even a Decimal has room for.
        raise ValueError("no number") from None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


#: Made once: json.loads would make one for every body.
_STRICT = json.JSONDecoder(
    object_pairs_hook=_each_key_once, parse_float=_decimal, parse_constant=_no_number
)
