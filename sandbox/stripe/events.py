"""Stripe's webhooks: `Stripe-Signature: t=…,v1=…`, signed anew at every request to send."""

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
#: How old a stale signature is, in seconds: past the 300 that Stripe's clients allow.
_STALE_SECONDS = 3600


def sign(secret: str, body: bytes, at: int) -> str:
    """This function will give the header's value. Source: Stripe's page on webhook signatures."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def parcel(sandbox: Sandbox, event: Json, forge: Forgery | None = None) -> Parcel:
    """This function will sign an event and address it to the ingress."""
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
    """This function will tell the ingress in the background, again and again if need be."""
    event = sandbox.stripe.add_event(event_type, copy.deepcopy(about))
    sandbox.courier.post(parcel(sandbox, event))
