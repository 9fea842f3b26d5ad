"""Mask phone numbers: enough stays to recognize one, and too little to call it."""

from __future__ import annotations

import re

_LAST_DIGITS = 4
_DIGIT = re.compile(r"[0-9]")


def last_digits(number: object) -> str | None:
    """Mask a number to an ellipsis and its last four digits.

    The result is None if the value is not text or has no digit.
    """
    digits = _DIGIT.findall(number) if isinstance(number, str) else []
    return f"…{''.join(digits[-_LAST_DIGITS:])}" if digits else None
