"""What is kept of a phone number: enough to recognise it by, and not to call it."""

from __future__ import annotations

import re

_LAST_DIGITS = 4
_DIGIT = re.compile(r"[0-9]")


def last_digits(number: object) -> str | None:
    """This function will keep the last four digits of a number, and that there were more.

    None for what is no text, or has no digit.
    """
    digits = _DIGIT.findall(number) if isinstance(number, str) else []
    return f"…{''.join(digits[-_LAST_DIGITS:])}" if digits else None
