"""Ids: text with a kind prefix, made by us, ordered by the time they were made.

A provider's own id is never ours: it is stored as external_id.
"""

from __future__ import annotations

import secrets
import time
from datetime import datetime

#: Crockford's base 32, in lower case: sorts as bytes do, and has no letters that look like digits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
#: Every two of them, since an id is made for every request: by ten bits at a time.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
#: Where they stand in the time, and in the chance behind it.
_TIME_SHIFTS, _CHANCE_SHIFTS = range(40, -1, -10), range(70, -1, -10)


def new_id(kind: str) -> str:
    """This function will make an id such as `org_01kae…`: 48 bits of milliseconds, 80 of chance.

    Units: `kind` is two to four lower-case letters; the part after it is 26 characters.
    """
    return new_ids(kind, 1)[0]


def new_ids(kind: str, count: int) -> list[str]:
    """This function will make so many ids at once, for less than one by one."""
    made_at = _digits(time.time_ns() // 1_000_000, _TIME_SHIFTS)
    chance = secrets.token_bytes(10 * count)
    return [
        f"{kind}_{made_at}"
        f"{_digits(int.from_bytes(chance[start : start + 10], 'big'), _CHANCE_SHIFTS)}"
        for start in range(0, 10 * count, 10)
    ]


def first_id(kind: str, made_at: datetime) -> str:
    """This function will give the lowest id that can have been made at an instant."""
    made = _digits(int(made_at.timestamp() * 1000), _TIME_SHIFTS)
    return f"{kind}_{made}{_digits(0, _CHANCE_SHIFTS)}"


def _digits(number: int, shifts: range) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in shifts])
