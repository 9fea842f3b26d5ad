"""One API request to a stand-in and its response, as plain values for handlers.

Handlers are synchronous. Each one runs in one step, so no other request sees half of its effect.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

Json = dict[str, Any]

#: Characters of the IDs that PayPal generates.
_ID_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class ApiRequest:
    """A request as received. `path` is the provider's own, without our prefix."""

    provider: str
    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def form(self) -> dict[str, str]:
        """Return the fields of a form body, blank ones included; {} for any other body."""
        if "x-www-form-urlencoded" not in self.headers.get("content-type", ""):
            return {}
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def json(self) -> Json | None:
        """Return the body as a JSON object, or None if it is not one."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def basic(self) -> tuple[str, str]:
        """Return user and password of HTTP Basic, or two blanks if they are missing."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return "", ""
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, password

    def bearer(self) -> str:
        """Return the bearer token, or a blank if there is none."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True)
class Answer:
    """The provider's response."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Rejected(Exception):
    """The provider answers with an error, and nothing has changed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"answered {answer.status}")
        self.answer = answer


def json_answer(value: object, status: int = 200, **headers: str) -> Answer:
    """Build a response with a JSON body. Header names are given with underscores."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Answer(status, body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def same_secret(given: str, expected: str) -> bool:
    """Compare two secrets in constant time."""
    return secrets.compare_digest(given.encode(), expected.encode())


def random_id(length: int) -> str:
    """Generate a random ID of capital letters and digits."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(length))


def iso_seconds(at: datetime | None = None) -> str:
    """Format an instant (default: now) as RFC 3339 in whole seconds, with `Z`."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_ms(at: datetime | None = None) -> str:
    """Format an instant (default: now) as RFC 3339 in milliseconds, with `Z`."""
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
