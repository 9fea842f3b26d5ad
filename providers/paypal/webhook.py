"""Verifies PayPal's webhooks, by PayPal's certificate or by PayPal's API.

The signature covers only a CRC32 of the body, so another body can be made to fit a genuine
signature. The recorder of the message must refuse a transmission ID that arrives again with another
body. Never credit an amount that only a message claims.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from base.settings import Settings, SettingsError, require
from providers.errors import ForgedWebhook
from providers.instants import instant_of
from providers.paypal.api import PayPalApi
from providers.paypal.certificate_memory import CertificateMemory
from providers.paypal.certificates import CertificateStore
from providers.paypal.envelope import read_envelope

#: PayPal retries a delivery for three days. It does not document whether the retries get a new
#: time. One hour is added as a margin.
TRANSMISSION_AGE_MAX = timedelta(days=3, hours=1)
#: Largest accepted difference by which PayPal's clock is ahead of ours.
TRANSMISSION_AHEAD_MAX = timedelta(hours=1)

#: The only algorithm that real deliveries use, and the only one that is accepted.
_ALGORITHM = "SHA256withRSA"
_PADDING, _HASH = PKCS1v15(), SHA256()
#: Characters of the longest header value. Source: PayPal's schema verify_webhook_signature.
_HEADER_LENGTH_MAX = 500
#: An RSA signature has the length of its key: from 2048 bits, the least in chains.py, to 4096.
_SIGNATURE_BYTES_MIN, _SIGNATURE_BYTES_MAX = 256, 512
_SIGNATURE_HEADERS = frozenset(
    {
        "paypal-transmission-id",
        "paypal-transmission-time",
        "paypal-auth-algo",
        "paypal-transmission-sig",
        "paypal-cert-url",
    }
)
_TRANSMISSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,49}")
#: Source: PayPal's notifications_webhooks_v1 OpenAPI file, field webhook_id.
_WEBHOOK_ID = re.compile(r"[A-Za-z0-9]{1,50}")


class VerifiedWebhook(NamedTuple):
    """A message that PayPal signed for our webhook."""

    #: The event's ID. Two bodies can have the same ID: keep the body's hash with transmission_id.
    external_id: str
    event_type: str
    transmission_id: str


class Transmission(NamedTuple):
    """The five signature headers, checked for form. `time` keeps its original text."""

    id: str
    time: str
    sent_at: datetime
    signature: bytes
    certificate_url: str


def transmission_of(headers: Mapping[str, str]) -> Transmission:
    """Read the signature's headers. Their names may be in any case.

    Raises: ForgedWebhook if a header is missing, invalid, or given twice.
    """
    signature_headers = _signature_headers(headers)
    identifier = _header_value(signature_headers, "paypal-transmission-id")
    time = _header_value(signature_headers, "paypal-transmission-time")
    sent_at = instant_of(time)
    if not _TRANSMISSION_ID.fullmatch(identifier):
        raise ForgedWebhook("the transmission id is malformed")
    if sent_at is None:
        raise ForgedWebhook("the transmission time is malformed")
    if _header_value(signature_headers, "paypal-auth-algo") != _ALGORITHM:
        raise ForgedWebhook("the algorithm is not SHA256withRSA")
    try:
        signature = base64.b64decode(
            _header_value(signature_headers, "paypal-transmission-sig"), validate=True
        )
    except (binascii.Error, ValueError):
        raise ForgedWebhook("the signature is not base64") from None
    if not _SIGNATURE_BYTES_MIN <= len(signature) <= _SIGNATURE_BYTES_MAX:
        # Checked before a certificate is requested.
        raise ForgedWebhook("the signature does not have the length of an RSA signature")
    return Transmission(
        identifier, time, sent_at, signature, _header_value(signature_headers, "paypal-cert-url")
    )


def is_signed(key: RSAPublicKey, transmission: Transmission, webhook_id: str, body: bytes) -> bool:
    """Return whether a key signed a transmission of this body to this webhook.

    Source: PayPal's Python SDK, notifications.py. All public samples verify this way.
    """
    text = f"{transmission.id}|{transmission.time}|{webhook_id}|{zlib.crc32(body)}"
    try:
        key.verify(transmission.signature, text.encode("ascii"), _PADDING, _HASH)
    except InvalidSignature:
        return False
    return True


class PayPalWebhookVerifier:
    """Verifies that PayPal sent a message. Threads may share it."""

    def __init__(
        self,
        *,
        webhook_id: str,
        certificates: CertificateStore,
        api: PayPalApi | None = None,
        age_max: timedelta = TRANSMISSION_AGE_MAX,
        ahead_max: timedelta = TRANSMISSION_AHEAD_MAX,
    ) -> None:
        # The simulator's ID, WEBHOOK_ID, has an underscore, so it cannot be configured. PayPal
        # signs messages for it at any developer's request.
        if not _WEBHOOK_ID.fullmatch(webhook_id):
            raise SettingsError("PAYPAL_WEBHOOK_ID: is not the id of a webhook of ours")
        self.certificates = certificates
        self._webhook_id = webhook_id
        self._api = api
        self._age_max = age_max
        self._ahead_max = ahead_max

    @classmethod
    def from_settings(
        cls, settings: Settings, api: PayPalApi, memory: CertificateMemory | None = None
    ) -> PayPalWebhookVerifier:
        """Make the verifier that PAYPAL_VERIFICATION names.

        `memory` keeps the known certificates beyond the process. Raises: SettingsError if the
        webhook's ID is missing or the simulator's.
        """
        require(settings, "paypal_webhook_id")
        return cls(
            webhook_id=settings.paypal_webhook_id,
            certificates=CertificateStore.from_settings(settings, memory),
            api=api if settings.paypal_verification == "api" else None,
        )

    def close(self) -> None:
        """Close all connections."""
        self.certificates.close()

    def needs_request(self, transmission: Transmission) -> bool:
        """Return whether `verify` must send a request, and so may wait.

        Raises: ForgedWebhook for a certificate URL that is not allowed.
        """
        self.certificates.check_url(transmission.certificate_url)
        if self._api is not None:
            return True
        return self.certificates.cached(transmission.certificate_url) is None

    def verify(self, transmission: Transmission, body: bytes, *, now: datetime) -> VerifiedWebhook:
        """Verify a message and read its envelope. Nothing is stored.

        Replay: the same message verifies again as long as its transmission time is fresh.
        Raises: ForgedWebhook, MalformedWebhook (verified, but unreadable), CertificateUnavailable.
        If PayPal's API verifies, also ProviderUnavailable and CredentialsRejected.
        """
        if not -self._ahead_max <= now - transmission.sent_at <= self._age_max:
            raise ForgedWebhook("the transmission time is too old or in the future")
        if self._api is not None:
            self._verify_at_paypal(self._api, transmission, body)
        else:
            key = self.certificates.key(transmission.certificate_url, now=now)
            if not is_signed(key, transmission, self._webhook_id, body):
                raise ForgedWebhook("the signature is not PayPal's for this body and webhook")
        event = read_envelope(body)
        return VerifiedWebhook(
            external_id=event.external_id,
            event_type=event.event_type,
            transmission_id=transmission.id,
        )

    def _verify_at_paypal(self, api: PayPalApi, transmission: Transmission, body: bytes) -> None:
        self.certificates.check_url(transmission.certificate_url)
        fields = {
            "auth_algo": _ALGORITHM,
            "cert_url": transmission.certificate_url,
            "transmission_id": transmission.id,
            "transmission_sig": base64.b64encode(transmission.signature).decode("ascii"),
            "transmission_time": transmission.time,
        }
        if not _is_one_object(body):
            # PayPal sends and verifies only objects. The body becomes part of the request to
            # PayPal. A body that is not one whole object could end its member early and add others.
            raise ForgedWebhook("the body is not a JSON object")
        if not api.verify_webhook(fields, body, webhook_id=self._webhook_id):
            raise ForgedWebhook("PayPal reports that it did not sign this message")


def _signature_headers(headers: Mapping[str, str]) -> dict[str, str]:
    found_headers: dict[str, str] = {}
    for key, value in headers.items():
        name = key.lower()
        if name in _SIGNATURE_HEADERS and found_headers.setdefault(name, value) != value:
            raise ForgedWebhook(f"{name} is given twice")
    return found_headers


def _header_value(signature_headers: Mapping[str, str], name: str) -> str:
    value = signature_headers.get(name)
    if value is None:
        raise ForgedWebhook(f"{name} is missing")
    if not value or len(value) > _HEADER_LENGTH_MAX or not value.isascii():
        raise ForgedWebhook(f"{name} is malformed")
    return value


def _is_one_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False
