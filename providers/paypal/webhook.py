"""Whether a message was signed by PayPal for our webhook, by its certificate or by PayPal's API.

The signature covers only a CRC32 of the body, so another body can be made to fit a genuine one:
whoever records the message must refuse a transmission id that comes again with another body, and
no amount in it may be believed.
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
from providers.paypal.envelope import read

#: PayPal tries again for three days; whether it renews the time is not documented. An hour more.
TRANSMISSION_AGE_MAX = timedelta(days=3, hours=1)
#: How far ahead of ours PayPal's clock may be.
TRANSMISSION_AHEAD_MAX = timedelta(hours=1)

#: The only algorithm seen, and the only one accepted.
_ALGORITHM = "SHA256withRSA"
_PADDING, _HASH = PKCS1v15(), SHA256()
#: Characters of the longest header value. Source: PayPal's schema verify_webhook_signature.
_HEADER_LENGTH_MAX = 500
#: An RSA signature is as long as its key: 2048 bits, the least that chains.py accepts, to 4096.
_SIGNATURE_BYTES_MIN, _SIGNATURE_BYTES_MAX = 256, 512
_HEADERS = frozenset(
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
    """A message that PayPal signed for us."""

    #: The event's id. It is not unique to a body: keep the body's hash with transmission_id.
    external_id: str
    event_type: str
    transmission_id: str


class Transmission(NamedTuple):
    """The five headers of a signature, checked for shape; `time` is kept as it was written."""

    id: str
    time: str
    sent_at: datetime
    signature: bytes
    certificate_url: str


def transmission_of(headers: Mapping[str, str]) -> Transmission:
    """Read the signature's headers, whatever the case of their names.

    Raises: ForgedWebhook when one is missing, odd, or given twice.
    """
    given = _signature_headers(headers)
    identifier = _checked(given, "paypal-transmission-id")
    time = _checked(given, "paypal-transmission-time")
    sent_at = instant_of(time)
    if not _TRANSMISSION_ID.fullmatch(identifier):
        raise ForgedWebhook("the transmission id is odd")
    if sent_at is None:
        raise ForgedWebhook("the transmission time is junk")
    if _checked(given, "paypal-auth-algo") != _ALGORITHM:
        raise ForgedWebhook("the algorithm is not SHA256withRSA")
    try:
        signature = base64.b64decode(_checked(given, "paypal-transmission-sig"), validate=True)
    except (binascii.Error, ValueError):
        raise ForgedWebhook("the signature is not base64") from None
    if not _SIGNATURE_BYTES_MIN <= len(signature) <= _SIGNATURE_BYTES_MAX:
        # Found before anybody is asked for a certificate.
        raise ForgedWebhook("the signature is not one by an RSA key of 2048 bits or more")
    return Transmission(identifier, time, sent_at, signature, _checked(given, "paypal-cert-url"))


def is_signed(key: RSAPublicKey, transmission: Transmission, webhook_id: str, body: bytes) -> bool:
    """This function will tell whether a key signed a transmission of a body to a webhook.

    Source: PayPal's Python SDK, notifications.py; all public samples verify this way.
    """
    text = f"{transmission.id}|{transmission.time}|{webhook_id}|{zlib.crc32(body)}"
    try:
        key.verify(transmission.signature, text.encode("ascii"), _PADDING, _HASH)
    except InvalidSignature:
        return False
    return True


class PayPalWebhookVerifier:
    """The proof that a message is PayPal's; safe to share between threads."""

    def __init__(
        self,
        *,
        webhook_id: str,
        certificates: CertificateStore,
        api: PayPalApi | None = None,
        age_max: timedelta = TRANSMISSION_AGE_MAX,
        ahead_max: timedelta = TRANSMISSION_AHEAD_MAX,
    ) -> None:
        # The simulator's id, WEBHOOK_ID, has an underscore: it can never be configured. PayPal
        # signs for it at any developer's request.
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

        `memory` keeps the known certificates beyond the process. Raises: SettingsError when the
        webhook's id is missing or the simulator's.
        """
        require(settings, "paypal_webhook_id")
        return cls(
            webhook_id=settings.paypal_webhook_id,
            certificates=CertificateStore.from_settings(settings, memory),
            api=api if settings.paypal_verification == "api" else None,
        )

    def close(self) -> None:
        """This function will close the connections that stand."""
        self.certificates.close()

    def must_ask(self, transmission: Transmission) -> bool:
        """This function will tell whether `prove` will have to ask somebody, and so may wait.

        Raises: ForgedWebhook for an address that nobody is asked at.
        """
        self.certificates.check_url(transmission.certificate_url)
        if self._api is not None:
            return True
        return self.certificates.cached(transmission.certificate_url) is None

    def prove(self, transmission: Transmission, body: bytes, *, now: datetime) -> VerifiedWebhook:
        """This function will prove a message and read its envelope; nothing of it is kept.

        Replay: the same message is proved again for as long as its transmission time is fresh.
        Raises: ForgedWebhook, MalformedWebhook (proved, but unreadable), CertificateUnavailable
        or, where PayPal's API is asked, ProviderUnavailable and CredentialsRejected.
        """
        if not -self._ahead_max <= now - transmission.sent_at <= self._age_max:
            raise ForgedWebhook("the transmission time is too old or in the future")
        if self._api is not None:
            self._ask(self._api, transmission, body)
        else:
            key = self.certificates.key(transmission.certificate_url, now=now)
            if not is_signed(key, transmission, self._webhook_id, body):
                raise ForgedWebhook("the signature is not PayPal's for this body and webhook")
        event = read(body)
        return VerifiedWebhook(
            external_id=event.external_id,
            event_type=event.event_type,
            transmission_id=transmission.id,
        )

    def _ask(self, api: PayPalApi, transmission: Transmission, body: bytes) -> None:
        self.certificates.check_url(transmission.certificate_url)
        fields = {
            "auth_algo": _ALGORITHM,
            "cert_url": transmission.certificate_url,
            "transmission_id": transmission.id,
            "transmission_sig": base64.b64encode(transmission.signature).decode("ascii"),
            "transmission_time": transmission.time,
        }
        if not _is_one_object(body):
            # PayPal can only be asked about an object, and sends nothing else. Anything less
            # whole could also close the question early and answer it itself.
            raise ForgedWebhook("the body is not a JSON object")
        if not api.verify_webhook(fields, body, webhook_id=self._webhook_id):
            raise ForgedWebhook("PayPal says that the signature is not its own")


def _signature_headers(headers: Mapping[str, str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for key, value in headers.items():
        name = key.lower()
        if name in _HEADERS and given.setdefault(name, value) != value:
            raise ForgedWebhook(f"{name} is given twice")
    return given


def _checked(given: Mapping[str, str], name: str) -> str:
    value = given.get(name)
    if value is None:
        raise ForgedWebhook(f"{name} is missing")
    if not value or len(value) > _HEADER_LENGTH_MAX or not value.isascii():
        raise ForgedWebhook(f"{name} is odd")
    return value


def _is_one_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False
