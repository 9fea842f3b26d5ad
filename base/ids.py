"""Make ids of Holdfast's objects: a kind prefix and text that sorts by time.

A provider's id is never used as an id of Holdfast. It is stored as `external_id`.
"""

from __future__ import annotations

import secrets
import time
from datetime import datetime

#: Crockford's base 32 in lower case. It sorts like bytes and has no letters that resemble digits.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
#: All pairs of these characters. Ten bits at a time are faster than five, and every request needs
#: an id.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
#: Bit positions of the pairs in the time, and in the random part that follows it.
_TIME_SHIFTS, _RANDOM_SHIFTS = range(40, -1, -10), range(70, -1, -10)
#: Characters of an id's time, which follow the underscore.
INSTANT_LENGTH = 2 * len(_TIME_SHIFTS)


def new_id(kind: str) -> str:
    """Make an id such as `org_01kae…`.

    `kind` is two to four lower-case letters. The 26 characters after the underscore hold 48 bits
    of milliseconds and 80 random bits.
    """
    return new_ids(kind, 1)[0]


def new_ids(kind: str, count: int) -> list[str]:
    """Make several ids of the same instant, which is faster than one at a time."""
    time_digits = _encode_base32(time.time_ns() // 1_000_000, _TIME_SHIFTS)
    random_bytes = secrets.token_bytes(10 * count)
    return [
        f"{kind}_{time_digits}"
        f"{_encode_base32(int.from_bytes(random_bytes[start : start + 10], 'big'), _RANDOM_SHIFTS)}"
        for start in range(0, 10 * count, 10)
    ]


def first_id(kind: str, made_at: datetime) -> str:
    """Return the lowest id that can have been made at this instant."""
    time_digits = _encode_base32(int(made_at.timestamp() * 1000), _TIME_SHIFTS)
    return f"{kind}_{time_digits}{_encode_base32(0, _RANDOM_SHIFTS)}"


def _encode_base32(number: int, shifts: range) -> str:
    """Write the ten bits at each shift as two characters."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in shifts])
