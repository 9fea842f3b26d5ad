"""The ids in PayPal's messages and answers, checked before use."""

from __future__ import annotations

import re

#: Ids as PayPal makes them (I-BW452GLLEP1G, 8VC964970N548345V); safe inside a URL's path.
_RESOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,49}")


def is_resource_id(value: object) -> bool:
    """This function will tell whether a value can be the id of a PayPal resource."""
    return isinstance(value, str) and _RESOURCE_ID.fullmatch(value) is not None
