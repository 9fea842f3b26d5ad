"""The requests that the stand-ins received, for tests that count provider calls.

A test can prove, for example, that no request was sent. The journal keeps no secrets: it stores no
headers, and no field whose name contains token, secret, password or signature, or ends in _sig.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from sandbox.exchange import ApiRequest, Json, iso_ms

#: Number of requests that are kept. The journal drops the oldest first.
_ENTRIES_MAX = 5000
_SECRET_NAME = re.compile(r"token|secret|password|signature|_sig$", re.IGNORECASE)


class Journal:
    """Requests in the order received."""

    def __init__(self) -> None:
        self._entries: deque[Json] = deque(maxlen=_ENTRIES_MAX)

    def record(self, request: ApiRequest) -> Json:
        """Record a request on arrival, before it is handled.

        The caller fills in `outcome` and `status` of the returned entry later.
        """
        entry: Json = {
            "at": iso_ms(),
            "provider": request.provider,
            "method": request.method,
            "path": request.path,
            "query": _without_secrets(dict(request.query)),
            "form": _without_secrets(request.form()),
            "json": _without_secrets(request.json()),
            "fault_id": None,
            "outcome": "received",
            "status": None,
        }
        self._entries.append(entry)
        return entry

    def find(self, provider: str = "", path_contains: str = "", method: str = "") -> list[Json]:
        """Return the matching requests, oldest first."""
        return [
            entry
            for entry in self._entries
            if provider in ("", entry["provider"])
            and path_contains in entry["path"]
            and method.upper() in ("", entry["method"])
        ]

    def clear(self) -> None:
        """Forget every request."""
        self._entries.clear()


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_secrets(v) for k, v in value.items() if not _SECRET_NAME.search(str(k))}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
