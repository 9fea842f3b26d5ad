"""Parses the timestamps that providers send."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC_3339_FORM = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})"
    r"(?:\.(\d+))?(?:[Zz]|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
#: RFC 3339 writes a leap second as :60. It is read as the start of the next minute.
_LEAP_SECOND = 60


def instant_of(value: object) -> datetime | None:
    """Parse an RFC 3339 timestamp as UTC; return None for anything else.

    Digits beyond the microsecond are cut off. Second 60 is the first second of the next minute.
    PayPal writes `Z`, milliseconds, or an offset, and its simulator even writes month 19. Vapi
    writes milliseconds and `Z`. Source: RFC 3339; PayPal's OpenAPI files, schema date_time.
    """
    if not isinstance(value, str):
        return None
    match = _RFC_3339_FORM.fullmatch(value)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    decimals, sign, offset_hours, offset_minutes = match.groups()[6:]
    leap_second = timedelta(seconds=1 if second == _LEAP_SECOND else 0)
    micros = int((decimals or "0")[:6].ljust(6, "0"))
    try:
        zone = UTC if sign is None else _zone(sign, int(offset_hours), int(offset_minutes))
        instant = datetime(
            year, month, day, hour, minute, 59 if leap_second else second, micros, zone
        )
        return instant.astimezone(UTC) + leap_second
    except (ValueError, OverflowError):
        return None


def _zone(sign: str, hours: int, minutes: int) -> timezone:
    if hours > 23 or minutes > 59:
        raise ValueError("an offset is less than a day")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(offset if sign == "+" else -offset)
