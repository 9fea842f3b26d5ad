"""Stripe's webhooks, with a new signature at every delivery.

The header is `Stripe-Signature: t=...,v1=...`.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import time
from typing import Literal

from sandbox.core import Sandbox
from sandbox.delivery import Parcel
from sandbox.exchange import Json

Forgery = Literal["signature", "stale"]
#: Age of a stale signature in seconds. Stripe's clients allow at most 300.
_STALE_SECONDS = 3600


def sign(secret: str, body: bytes, at: int) -> str:
    """Return the value of the signature header.

    Source: Stripe's page on webhook signatures.
    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def parcel(sandbox: Sandbox, event: Json, forge: Forgery | None = None) -> Parcel:
    """Sign an event and address it to the ingress."""
    body = json.dumps(event, separators=(",", ":")).encode()
    secret = sandbox.keys.secrets.stripe_webhook_secret
    at = int(time.time()) - (_STALE_SECONDS if forge == "stale" else 0)
    header = sign("not the secret" if forge == "signature" else secret, body, at)
    return Parcel(
        provider="stripe",
        event_id=event["id"],
        event_type=event["type"],
        transmission_id="",
        url=sandbox.webhook_url("stripe"),
        headers={
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": header,
        },
        body=body,
    )


def announce(sandbox: Sandbox, event_type: str, about: Json) -> None:
    """Deliver an event to the ingress in the background, with retries."""
    event = sandbox.stripe.add_event(event_type, copy.deepcopy(about))
    sandbox.courier.post(parcel(sandbox, event))
