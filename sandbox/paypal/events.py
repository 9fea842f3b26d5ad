"""PayPal's webhooks: envelope, signature, and forgeries that must be refused.

The signature covers only the CRC32 of the body. That is PayPal's design, not the sandbox's.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sandbox.core import Sandbox
from sandbox.delivery import Parcel
from sandbox.exchange import Json, iso_ms, iso_seconds, random_id
from sandbox.paypal.state import LINKS_URL, StoredEvent

Forgery = Literal["signature", "body_crc", "webhook_id"]

#: The webhook ID that PayPal's simulator signs with. Anyone can have the simulator sign any event.
_SIMULATOR_WEBHOOK_ID = "WEBHOOK_ID"
#: Characters whose lowest four bits can be changed freely. Sixteen of them are enough to give a
#: text any CRC32.
_STEERING = "@" * 16
_FORGED_VALUE = "99999.00"


@dataclass(frozen=True)
class EventContent:
    """The content of an event, and the fields of its envelope that a request can set."""

    event_type: str
    resource_type: str
    resource: Json
    #: "2.0", or blank for version 1, in which PayPal sends no version.
    resource_version: str = "2.0"
    event_id: str = ""
    create_time: str = ""
    transmission_id: str = ""
    transmission_time: str = ""


def make_event(
    sandbox: Sandbox, content: EventContent, forge: Forgery | None = None
) -> StoredEvent:
    """Build an event, sign it as PayPal does, and store it."""
    event_id = content.event_id or f"WH-{random_id(17)}-{random_id(17)}"
    body = _envelope(content, event_id)
    webhook_id = sandbox.keys.secrets.paypal_webhook_id
    headers = sign(
        sandbox,
        body,
        transmission_id=content.transmission_id or str(uuid4()),
        transmission_time=content.transmission_time or iso_seconds(),
        webhook_id=_SIMULATOR_WEBHOOK_ID if forge == "webhook_id" else webhook_id,
    )
    if forge == "signature":
        genuine = base64.b64decode(headers["PAYPAL-TRANSMISSION-SIG"])
        headers["PAYPAL-TRANSMISSION-SIG"] = base64.b64encode(genuine[::-1]).decode()
    if forge == "body_crc":
        body = forge_body(body)
        event_id = json.loads(body)["id"]
    transmission_id = headers["PAYPAL-TRANSMISSION-ID"]
    event = StoredEvent(event_id, content.event_type, transmission_id, headers, body)
    sandbox.paypal.events[event_id] = event
    return event


def parcel(sandbox: Sandbox, event: StoredEvent) -> Parcel:
    """Address an event to the ingress."""
    return Parcel(
        provider="paypal",
        event_id=event.event_id,
        event_type=event.event_type,
        transmission_id=event.transmission_id,
        url=sandbox.webhook_url("paypal"),
        headers=event.headers,
        body=event.body,
    )


def announce(sandbox: Sandbox, content: EventContent) -> None:
    """Deliver an event to the ingress in the background, with retries."""
    sandbox.courier.post(parcel(sandbox, make_event(sandbox, content)))


async def deliver(sandbox: Sandbox, content: EventContent, *, retry: bool) -> list[Json]:
    """Deliver an event to the ingress and wait for the first response."""
    delivery = parcel(sandbox, make_event(sandbox, content))
    return await sandbox.courier.send(delivery, copies=1, retry=retry)


def sign(
    sandbox: Sandbox, body: bytes, *, transmission_id: str, transmission_time: str, webhook_id: str
) -> dict[str, str]:
    """Return the headers that PayPal sends with a body.

    Source: PayPal's own clients rebuild `id|time|webhook id|CRC32 in decimal` and check it with RSA
    PKCS#1 v1.5 and SHA-256.
    """
    message = signed_text(transmission_id, transmission_time, webhook_id, body)
    signature = sandbox.keys.signer.sign(message, padding.PKCS1v15(), hashes.SHA256())
    certificate = f"v1/notifications/certs/{sandbox.keys.certificate_id}"
    return {
        "Content-Type": "application/json",
        "User-Agent": "PayPal/AUHD-1.0-1",
        "Correlation-Id": random_id(13).lower(),
        "PAYPAL-TRANSMISSION-ID": transmission_id,
        "PAYPAL-TRANSMISSION-TIME": transmission_time,
        "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode(),
        "PAYPAL-CERT-URL": f"{sandbox.api_url('paypal')}/{certificate}",
        "PAYPAL-AUTH-ALGO": "SHA256withRSA",
        "PAYPAL-AUTH-VERSION": "v2",
    }


def signed_text(
    transmission_id: str, transmission_time: str, webhook_id: str, body: bytes
) -> bytes:
    """Return the bytes that PayPal signs."""
    crc = zlib.crc32(body) & 0xFFFFFFFF
    return f"{transmission_id}|{transmission_time}|{webhook_id}|{crc}".encode()


def forge_body(genuine: bytes) -> bytes:
    """Build another event with the same CRC32, so that the old signature is valid.

    The forged event has another ID and, if it has an amount, a far larger one.
    """
    event = json.loads(genuine)
    event["id"] = f"WH-{random_id(17)}-{random_id(17)}"
    if "amount" in event["resource"]:
        key = "value" if "value" in event["resource"]["amount"] else "total"
        event["resource"]["amount"][key] = _FORGED_VALUE
    event["summary"] = f"{event.get('summary', '')} {_STEERING}"
    body = json.dumps(event, separators=(",", ":")).encode()
    return steer_crc32(body, body.index(_STEERING.encode()), zlib.crc32(genuine))


def steer_crc32(body: bytes, start: int, wanted: int) -> bytes:
    """Change the steering characters so that the body's CRC32 is `wanted`.

    CRC32 is linear: flipping one bit of the body flips a fixed set of the checksum's bits, whatever
    the other bits are. Gaussian elimination then finds the bits to flip.

    Raises: ArithmeticError if the free bits cannot produce the checksum.
    """
    current = zlib.crc32(body)
    pivots: dict[int, tuple[int, int]] = {}
    for number in range(len(_STEERING) * 4):
        effect = zlib.crc32(_flip(body, start, 1 << number)) ^ current
        effect, bits = _reduce(effect, 1 << number, pivots.get)
        if effect:
            pivots[effect.bit_length()] = (effect, bits)
    rest, bits = _reduce(current ^ wanted, 0, pivots.get)
    if rest:
        raise ArithmeticError("the free bits cannot produce the checksum")
    return _flip(body, start, bits)


def _reduce(
    effect: int, bits: int, pivot_of: Callable[[int], tuple[int, int] | None]
) -> tuple[int, int]:
    while effect and (pivot := pivot_of(effect.bit_length())):
        effect, bits = effect ^ pivot[0], bits ^ pivot[1]
    return effect, bits


def _flip(body: bytes, start: int, bits: int) -> bytes:
    changed = bytearray(body)
    for index in range(len(_STEERING)):
        changed[start + index] ^= bits >> (4 * index) & 0xF
    return bytes(changed)


def _id_of(resource: Json) -> object:
    return resource.get("id") or resource.get("dispute_id")


def _envelope(content: EventContent, event_id: str) -> bytes:
    link = f"{LINKS_URL}/v1/notifications/webhooks-events/{event_id}"
    title = content.event_type.replace(".", " ").capitalize()
    event: Json = {
        "id": event_id,
        "event_version": "1.0",
        "create_time": content.create_time or iso_ms(),
        "resource_type": content.resource_type,
        "resource_version": content.resource_version,
        "event_type": content.event_type,
        "summary": f"{title}: {_id_of(content.resource)}",
        "resource": content.resource,
        "links": [
            {"href": link, "rel": "self", "method": "GET"},
            {"href": f"{link}/resend", "rel": "resend", "method": "POST"},
        ],
    }
    if not content.resource_version:
        del event["resource_version"]
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
