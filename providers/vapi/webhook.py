"""Verifies that Vapi sent a message, by its server credential's secret or an HMAC.

By default, Vapi's messages contain no proof of their sender. A message without proof is always
refused. A secret alone proves the sender, but not the body or its time. If an HMAC is configured,
it is required.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime

from base.settings import Settings
from providers.errors import ForgedWebhook
from providers.vapi.fields import MILLISECONDS_FROM

#: The most seconds by which a signed message's time may differ from ours.
TOLERANCE_SECONDS = 300
_BEARER = "bearer "
#: The defaults of an HMAC credential at Vapi, with SHA-256. Source: Vapi's page on server
#: authentication.
_SIGNATURE_HEADER = "x-signature"
_TIMESTAMP_HEADER = "x-timestamp"


class VapiWebhookVerifier:
    """Verifies messages with the configured credentials. Threads may share it.

    Source: docs.vapi.ai, server authentication (custom credentials: bearer token and HMAC).
    """

    def __init__(
        self,
        secrets: tuple[str, ...],
        *,
        hmac_secret: str = "",
    ) -> None:
        self._secrets = tuple(secret.encode() for secret in secrets if secret)
        self._hmac_secret = hmac_secret.encode()

    @classmethod
    def from_settings(cls, settings: Settings) -> VapiWebhookVerifier:
        """Make the verifier that the settings describe."""
        server_secrets = settings.vapi_server_secret.get_secret_value()
        return cls(
            tuple(part.strip() for part in server_secrets.split(",")),
            hmac_secret=settings.vapi_hmac_secret.get_secret_value(),
        )

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> None:
        """Verify a message. The names in `headers` must be in lower case.

        Replay: a genuine message verifies again, with an HMAC only within TOLERANCE_SECONDS. The
        inbox must recognize a repeat. Raises: ForgedWebhook.
        """
        self.verify_sender(headers, now=now)
        if self._hmac_secret:
            self._check_hmac(headers, body)

    def verify_sender(self, headers: Mapping[str, str], *, now: datetime) -> bool:
        """Check everything that needs no body, and return whether that proves the sender.

        A secret proves the sender. An HMAC proves nothing without the body; only its presence and
        its time are checked here. Raises: ForgedWebhook.
        """
        if self._hmac_secret:
            self._check_time(headers, now)
        elif not self._secrets:
            raise ForgedWebhook("no credential of Vapi is configured")
        if self._secrets:
            self._check_secret(headers)
        return bool(self._secrets)

    def _check_secret(self, headers: Mapping[str, str]) -> None:
        bearer = headers.get("authorization", "")
        token = bearer[len(_BEARER) :] if bearer[: len(_BEARER)].lower() == _BEARER else ""
        # A server may send its own header beside the credential. Either may have the secret.
        received = [
            value.strip() for value in (headers.get("x-vapi-secret", ""), token) if value.strip()
        ]
        if not received:
            raise ForgedWebhook("the secret is missing")
        # Every pair is compared, so that the time taken does not reveal which secret matched.
        matches = [
            hmac.compare_digest(_latin1_bytes(value), secret)
            for value in received
            for secret in self._secrets
        ]
        if not any(matches):
            raise ForgedWebhook("the secret is not the one configured")

    def _check_time(self, headers: Mapping[str, str], now: datetime) -> None:
        signature, timestamp = self._signature_in(headers)
        if not signature or not timestamp:
            raise ForgedWebhook("the signature or its timestamp is missing")
        if abs(_seconds_of(timestamp) - now.timestamp()) > TOLERANCE_SECONDS:
            raise ForgedWebhook("the timestamp differs too much from our clock")

    def _signature_in(self, headers: Mapping[str, str]) -> tuple[str, str]:
        signature = headers.get(_SIGNATURE_HEADER, "").strip().lower()
        return signature, headers.get(_TIMESTAMP_HEADER, "").strip()

    def _check_hmac(self, headers: Mapping[str, str], body: bytes) -> None:
        signature, timestamp = self._signature_in(headers)
        signed_text = _latin1_bytes(timestamp) + b"." + body
        expected = hmac.new(self._hmac_secret, signed_text, hashlib.sha256).hexdigest()
        # Some senders write the algorithm before the signature, as in "sha256=...".
        signature_hex = signature.rpartition("=")[2]
        if not hmac.compare_digest(_latin1_bytes(signature_hex), expected.encode()):
            raise ForgedWebhook("the signature does not match this body and timestamp")


def _seconds_of(timestamp: str) -> float:
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
        raise ForgedWebhook("the timestamp is not a number")
    number = int(timestamp)
    return number / 1000 if number >= MILLISECONDS_FROM else number


def _latin1_bytes(text: str) -> bytes:
    # The server decodes headers as Latin-1, so this restores the bytes that the sender sent.
    return text.encode("latin-1", "backslashreplace")
