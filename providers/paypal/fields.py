"""Validates the IDs in PayPal's events and answers."""

from __future__ import annotations

import re

#: IDs as PayPal makes them (I-BW452GLLEP1G, 8VC964970N548345V). They are safe in a URL's path.
_RESOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,49}")


def is_resource_id(value: object) -> bool:
    """Return whether a value can be the ID of a PayPal resource."""
    return isinstance(value, str) and _RESOURCE_ID.fullmatch(value) is not None
