"""JSON as Vapi sends it, read strictly: each key once, and no number by way of a float."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

#: A time from this number on is one in milliseconds: in seconds it would lie in the year 5138, and
#: one below it, in milliseconds, before March 1973.
MILLISECONDS_FROM = 10**11


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object in UTF-8; numbers with a point become Decimals.

    Raises: ValueError when it is none, or names a key twice at any depth (two readers could then
    see two messages).
    """
    return read_with(_STRICT, body)


def read_with(decoder: json.JSONDecoder, body: bytes) -> dict[str, Any]:
    """Read a JSON object by a decoder of `strict_decoder`. Raises: as read_object."""
    try:
        value = decoder.decode(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def object_in(value: object) -> dict[str, Any]:
    """This function will give a member that is an object; an empty one if it is none."""
    return value if isinstance(value, dict) else {}


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members. Raises: ValueError if a key is named twice."""
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


def strict_decoder(make: Callable[[list[tuple[str, Any]]], Any]) -> json.JSONDecoder:
    """Make a decoder whose objects are made by `make`; keep it for all bodies."""
    return json.JSONDecoder(object_pairs_hook=make, parse_float=_decimal, parse_constant=_no_number)


_STRICT = strict_decoder(each_key_once)
