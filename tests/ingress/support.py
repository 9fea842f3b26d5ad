"""A running ingress, and the messages that tests send to it."""

from __future__ import annotations

import base64
import json
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sandbox.keys import load_keys
from sandbox.paypal.events import signed_text
from sandbox.twilio.events import sign as sign_for_twilio
from tests.support.sandbox import RunningSandbox

SUSPENDED = "BILLING.SUBSCRIPTION.SUSPENDED"


@dataclass
class Message:
    """A webhook as it is sent."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Ingress:
    url: str
    port: int
    client: httpx.Client
    sandbox: RunningSandbox

    def send(self, message: Message, path: str = "/webhooks/paypal", **headers: str):
        return self.client.post(path, content=message.body, headers={**message.headers, **headers})

    def raw(self, data: bytes) -> bytes:
        """Send raw bytes and return everything that is answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

    def genuine(self, event_type: str = SUSPENDED, **more: Any) -> Message:
        """Have the sandbox write and sign an event without delivering it."""
        given = {"event_type": event_type, "organization_id": "org_one", "deliver": False} | more
        (delivery,) = self.sandbox.control("POST", "/paypal/events", given)
        event = self.sandbox.control("GET", f"/paypal/events/{delivery['event_id']}")
        return Message(event["headers"], event["body"].encode())

    def signed(self, body: bytes, *, age: timedelta = timedelta(0)) -> Message:
        """Sign any body as the sandbox's PayPal does."""
        keys = load_keys(Path(self.sandbox.info["paypal"]["ca_file"]).parent)
        message = self.genuine()
        transmission_id = str(uuid.uuid4())
        time = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = signed_text(transmission_id, time, self.sandbox.info["paypal"]["webhook_id"], body)
        signature = keys.signer.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return Message(
            {
                **message.headers,
                "PAYPAL-TRANSMISSION-ID": transmission_id,
                "PAYPAL-TRANSMISSION-TIME": time,
                "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode(),
            },
            body,
        )


def paypal_event(event_id: str = "WH-1", event_type: str = SUSPENDED) -> bytes:
    return json.dumps(
        {"id": event_id, "event_type": event_type, "resource": {"id": "I-ABC"}}
    ).encode()


def callback(token: str, url: str, params: dict[str, str]) -> Message:
    """Build a Twilio callback that is signed with `token` for `url`."""
    return Message(
        {
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "X-Twilio-Signature": sign_for_twilio(token, url, params),
        },
        urlencode(params).encode(),
    )
