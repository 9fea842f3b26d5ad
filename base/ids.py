"""Ids: text with a kind prefix, made by us, ordered by the time they were made.

A provider's own id is never ours: it is stored as external_id.
"""

from __future__ import annotations

import secrets
import time
from datetime import datetime

#: Crockford's base 32, in lower case: sorts as bytes do, and has no letters that look like digits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(kind: str) -> str:
    """This function will make an id such as `org_01kae…`: 48 bits of milliseconds, 80 of chance.

    Units: `kind` is two to four lower-case letters; the part after it is 26 characters.
    """
    return _id(kind, time.time_ns() // 1_000_000, secrets.randbits(80))


def first_id(kind: str, made_at: datetime) -> str:
    """This function will give the lowest id that can have been made at an instant."""
    return _id(kind, int(made_at.timestamp() * 1000), 0)


def _id(kind: str, milliseconds: int, chance: int) -> str:
    number = milliseconds << 80 | chance
    digits = [_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{kind}_{''.join(digits)}"
