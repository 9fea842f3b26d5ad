"""Webhooks that are built and signed beforehand, as bytes ready for a socket.

No two are equal.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from base.ids import new_id
from benchmarks.system import System
from sandbox.keys import load_keys
from sandbox.paypal.events import signed_text
from sandbox.twilio.events import sign as sign_for_twilio


class PayPalSigner:
    """Signs with the key of the sandbox's PayPal, on two threads to save time."""

    def __init__(self, paypal: Mapping[str, str]) -> None:
        self._keys = load_keys(Path(paypal["ca_file"]).parent)
        self._webhook_id = paypal["webhook_id"]
        certificate = f"v1/notifications/certs/{self._keys.certificate_id}"
        self._certificate_url = f"{paypal['base_url']}/{certificate}"

    def requests(self, bodies: list[bytes], path: str = "/webhooks/paypal") -> list[bytes]:
        """Build one signed request for each body."""
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(lambda body: self._request(body, path), bodies))

    def _request(self, body: bytes, path: str) -> bytes:
        transmission_id = f"{secrets.token_hex(4)}-{secrets.token_hex(14)}"
        sent_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = signed_text(transmission_id, sent_at, self._webhook_id, body)
        signature = self._keys.signer.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return http_request(
            path,
            {
                "Accept": "*/*",
                "PAYPAL-TRANSMISSION-ID": transmission_id,
                "PAYPAL-TRANSMISSION-TIME": sent_at,
                "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode(),
                "PAYPAL-AUTH-VERSION": "v2",
                "PAYPAL-CERT-URL": self._certificate_url,
                "PAYPAL-AUTH-ALGO": "SHA256withRSA",
                "Content-Type": "application/json",
                "User-Agent": "PayPal/AUHD-1.0-1",
                "Correlation-Id": secrets.token_hex(7),
            },
            body,
        )


def paypal_event(event_type: str, resource: Mapping[str, object]) -> bytes:
    """Build an event with a new ID, as large as PayPal's events are."""
    event_id = f"WH-{secrets.token_hex(8)}-{secrets.token_hex(8)}".upper()
    link = f"https://api.paypal.com/v1/notifications/webhooks-events/{event_id}"
    return json.dumps(
        {
            "id": event_id,
            "create_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "resource_type": "subscription",
            "event_type": event_type,
            "event_version": "1.0",
            "resource_version": "2.0",
            "summary": "Told by a benchmark",
            "resource": {
                "plan_id": "P-HOLDFASTSANDBOXPLAN00001",
                "quantity": "1",
                "subscriber": {"name": {"given_name": "Ada", "surname": "Byron"}},
                "billing_info": {
                    "outstanding_balance": {"currency_code": "USD", "value": "0.00"},
                    "failed_payments_count": 0,
                },
                **resource,
            },
            "links": [
                {"href": link, "rel": "self", "method": "GET"},
                {"href": f"{link}/resend", "rel": "resend", "method": "POST"},
            ],
        }
    ).encode()


def ignored_event(number: int) -> bytes:
    """Build an event that concerns nothing. The ingress stores it as ignored."""
    return paypal_event("PAYMENT.SALE.PENDING", {"id": f"8VC{number:014d}"})


def changing_event(number: int) -> bytes:
    """Build an event whose job, for safety, stages a refresh for billing."""
    return paypal_event("CUSTOMER.DISPUTE.UPDATED", {"dispute_id": f"PP-D-{number:09d}"})


def billing_event() -> bytes:
    """Build an event whose job, in the billing queue, has no effect."""
    return paypal_event("PAYMENT.SALE.COMPLETED", {"id": "8VC"})


def twilio_callbacks(count: int, accounts: list[tuple[str, str]], public_url: str) -> list[bytes]:
    """Build status callbacks of messages, over the accounts (sid, token) in turn."""
    path = "/webhooks/twilio"
    made = []
    for number in range(count):
        sid, token = accounts[number % len(accounts)]
        params = {
            "AccountSid": sid,
            "ApiVersion": "2010-04-01",
            "MessageSid": f"SM{secrets.token_hex(16)}",
            "MessageStatus": "delivered",
            "To": "+15005550006",
            "From": "+15005550001",
        }
        made.append(
            http_request(
                path,
                {
                    "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
                    "User-Agent": "TwilioProxy/1.1",
                    "X-Twilio-Signature": sign_for_twilio(token, public_url + path, params),
                },
                urlencode(params).encode(),
            )
        )
    return made


def make_subaccounts(system: System, count: int) -> list[tuple[str, str]]:
    """Create organizations with one subaccount each and return (sid, token) of each."""
    made = []
    with system.bench.owner() as owner:
        for organization_id in system.bench.make_wallets(count):
            account = system.control("POST", "/twilio/subaccounts", {"friendly_name": "bench"})
            owner.execute(
                "INSERT INTO brands (id, organization_id, name, twilio_subaccount_sid, created_at)"
                " VALUES (%s, %s, 'bench', %s, now())",
                (new_id("brd"), organization_id, account["sid"]),
            )
            made.append((account["sid"], account["auth_token"]))
    return made


def http_request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Build one request as it is sent over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench.holdfast.example"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body
