"""Instants as providers write them, checked before use."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})", re.ASCII
)


def instant_of(value: object) -> datetime | None:
    """This function will read an instant in UTC, or None when it is junk.

    PayPal writes `Z`, milliseconds, or an offset, and its simulator also a month 19; Vapi writes
    milliseconds and `Z`. Source: RFC 3339.
    """
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
