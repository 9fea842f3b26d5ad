"""Reads Vapi's JSON strictly: each key once, and no number through a float."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

#: A timestamp from this number up is in milliseconds. In seconds it would be in the year 5138. A
#: smaller one, in milliseconds, would be before March 1973.
MILLISECONDS_FROM = 10**11


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object in UTF-8. Numbers with a decimal point become Decimals.

    Raises: ValueError if the body is not a JSON object, or repeats a key at any depth. With a
    repeated key, two readers could see two messages.
    """
    return read_with(_STRICT_DECODER, body)


def read_with(decoder: json.JSONDecoder, body: bytes) -> dict[str, Any]:
    """Read a JSON object with a decoder from `strict_decoder`. Raises: as read_object."""
    try:
        value = decoder.decode(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def object_in(value: object) -> dict[str, Any]:
    """Return a member that is an object, or an empty object for anything else."""
    return value if isinstance(value, dict) else {}


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its members. Raises: ValueError if a key is repeated."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is named twice")
    return members


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # The exponent is too large even for a Decimal.
        raise ValueError("no number") from None


def _reject_constant(literal: str) -> None:
    raise ValueError(f"{literal} is not a number")


def strict_decoder(build_object: Callable[[list[tuple[str, Any]]], Any]) -> json.JSONDecoder:
    """Make a decoder that builds each object with a function. Reuse it for all bodies."""
    return json.JSONDecoder(
        object_pairs_hook=build_object, parse_float=_decimal, parse_constant=_reject_constant
    )


_STRICT_DECODER = strict_decoder(each_key_once)
