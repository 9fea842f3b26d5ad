"""Verifies bearer tokens: JSON Web Tokens signed with our rotating keys.

Each key has exactly one algorithm. Only the token decides which organization a request acts for,
and what the request may do.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from base.log import get_logger
from base.settings import Settings

log = get_logger(__name__)

#: Algorithms a key may have. "none" is never allowed.
ALGORITHMS = ("EdDSA", "ES256", "RS256", "HS256")
#: Longest life of a token and allowed difference between clocks, in seconds.
LIFE_SECONDS_MAX = 86_400
LEEWAY_SECONDS = 30
#: Longest token in characters; shortest shared key in bytes and shortest RSA key in bits.
#: Source: RFC 7518, 3.2 and 3.3.
_TOKEN_LENGTH_MAX = 8_192
_SHARED_KEY_BYTES_MIN = 32
_RSA_KEY_BITS_MIN = 2_048
#: Seconds between two checks of whether the key file has changed.
_FILE_CHECK_SECONDS = 5.0
#: Longest organization id in a token, in characters.
_ID_LENGTH_MAX = 64


class BadToken(Exception):
    """The token is missing or invalid. The caller may see the message."""


class NotConfigured(Exception):
    """No key file is configured, so no token can be verified."""

    def __init__(self) -> None:
        super().__init__("API_JWKS_FILE is not set.")


@dataclass(frozen=True)
class Bearer:
    """The organization that a request acts for, and what it may do."""

    organization_id: str
    scopes: frozenset[str]


class Keys:
    """The keys of a JWKS file, read again when the file changes. Source: RFC 7517.

    If the file cannot be read any more, the last keys stay valid and an error is logged.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._file_version: tuple[int, int] | None = None
        self._keys: dict[str, tuple[str, Any]] = {}

    def key(self, kid: str) -> tuple[str, Any] | None:
        """Return a key's algorithm and the key; None if no key has this id."""
        with self._lock:
            if self._clock() - self._checked_at >= _FILE_CHECK_SECONDS:
                self._reload_if_changed()
            return self._keys.get(kid)

    def _reload_if_changed(self) -> None:
        self._checked_at = self._clock()
        try:
            status = self._path.stat()
            file_version = (status.st_mtime_ns, status.st_size)
            if file_version == self._file_version:
                return
            self._keys = read_keys(self._path.read_text())
            self._file_version = file_version
        except (OSError, ValueError) as error:
            log.error("api_keys_not_read", error=str(error))


def read_keys(content: str) -> dict[str, tuple[str, Any]]:
    """Read a JWKS into a mapping of key id to algorithm and key.

    Raises: ValueError if the text is no key list, or if a key has no id, another key's id, an
    algorithm outside ALGORITHMS, or too few bits.
    """
    try:
        document = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    key_entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(key_entries, list) or not all(
        isinstance(key_entry, dict) for key_entry in key_entries
    ):
        raise ValueError("it has no list of keys")
    keys: dict[str, tuple[str, Any]] = {}
    for key_entry in key_entries:
        kid, algorithm = key_entry.get("kid"), key_entry.get("alg")
        if not isinstance(kid, str) or not kid or algorithm not in ALGORITHMS:
            raise ValueError(f"each key needs a kid, and an alg from {', '.join(ALGORITHMS)}")
        if kid in keys:
            raise ValueError(f"two keys are called {kid}")
        keys[kid] = (algorithm, _load_key(key_entry, kid, algorithm))
    return keys


def _load_key(key_entry: dict[str, Any], kid: str, algorithm: str) -> Any:
    try:
        key = jwt.PyJWK.from_dict(key_entry, algorithm=algorithm).key
    except jwt.PyJWTError as error:
        raise ValueError(f"key {kid}: {error}") from None
    if algorithm == "HS256" and len(key) < _SHARED_KEY_BYTES_MIN:
        raise ValueError(f"key {kid} has fewer than {_SHARED_KEY_BYTES_MIN} bytes")
    if algorithm == "RS256" and key.key_size < _RSA_KEY_BITS_MIN:
        raise ValueError(f"key {kid} has fewer than {_RSA_KEY_BITS_MIN} bits")
    return key


class Tokens:
    """Verifies bearer tokens with the keys from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(settings.api_jwks_file) if settings.api_jwks_file else None
        self._audience = settings.api_audience
        self._issuer = settings.api_issuer or None

    @property
    def is_configured(self) -> bool:
        """Whether a key file is configured."""
        return self._keys is not None

    def verify(self, authorization: str | None) -> Bearer:
        """Verify the token of an Authorization header.

        The token's `kid` selects the key, and the key decides the algorithm. Raises: BadToken,
        NotConfigured. Source: RFC 8725.
        """
        if self._keys is None:
            raise NotConfigured
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise BadToken("a bearer token is missing")
        if len(token) > _TOKEN_LENGTH_MAX:
            raise BadToken("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            algorithm_and_key = self._keys.key(str(header.get("kid")))
            if algorithm_and_key is None or header.get("alg") != algorithm_and_key[0]:
                raise BadToken("the token names no key of API_JWKS_FILE")
            claims = jwt.decode(
                token,
                algorithm_and_key[1],
                algorithms=[algorithm_and_key[0]],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise BadToken("the token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise BadToken("the token's signature or a claim is invalid") from None
        return _bearer_of_claims(claims)


def _bearer_of_claims(claims: dict[str, Any]) -> Bearer:
    expires_at = claims["exp"]
    if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
        raise BadToken("the token's end is not a number")
    if expires_at > time.time() + LIFE_SECONDS_MAX + LEEWAY_SECONDS:
        raise BadToken(f"a token lives {LIFE_SECONDS_MAX} s at most")
    organization_id, scope = claims.get("org"), claims.get("scope", "")
    if not isinstance(organization_id, str) or not 0 < len(organization_id) <= _ID_LENGTH_MAX:
        raise BadToken("the token names no organization")
    if not organization_id.isprintable():
        raise BadToken("the token's organization is not an id")
    if not isinstance(scope, str):
        raise BadToken("the token's scope is not a text")
    return Bearer(organization_id, frozenset(scope.split()))
