"""The small pieces of PayPal's messages and answers: ids and instants, checked before use."""

from __future__ import annotations

import re
from datetime import UTC, datetime

#: Ids as PayPal makes them (I-BW452GLLEP1G, 8VC964970N548345V); safe inside a URL's path.
_RESOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,49}")
_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})", re.ASCII
)


def is_resource_id(value: object) -> bool:
    """This function will tell whether a value can be the id of a PayPal resource."""
    return isinstance(value, str) and _RESOURCE_ID.fullmatch(value) is not None


def instant_of(value: object) -> datetime | None:
    """This function will read an instant in UTC, or None when it is junk.

    PayPal writes `Z`, milliseconds, or an offset; its simulator also writes a month 19.
    Source: RFC 3339.
    """
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
