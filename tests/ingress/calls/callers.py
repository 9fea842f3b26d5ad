"""A customer with a phone number at the sandbox's Vapi, and tokens for the API."""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt

from base.operators import Operator
from db.models import CallHold
from db.models.calls import Call
from domain.calls.entry_points import EntryPointKind, add_entry_point
from domain.calls.rates import Rate, set_rate
from domain.calls.settings import Terms, set_terms
from tests.support.world import World

#: 0.01 a second, counted by the second.
RATE = Rate(600_000, 1)


class Caller:
    """An organization that receives calls, and Vapi's messages about them."""

    def __init__(self, world: World, *, micros: int = 1_000_000) -> None:
        self.world = world
        self.customer = world.customer(micros=micros)
        self.id = self.customer.id
        control = world.sandbox.control
        self.assistant_id = control("POST", "/vapi/assistants", {"name": "Voice"})["id"]
        self.number_id = control(
            "POST",
            "/vapi/numbers",
            {"number": "+15005550099", "twilio_sid": self.customer.sids[0]},
        )["id"]
        self.rate(RATE)
        self.entry_point(self.assistant_id)

    def rate(self, rate: Rate) -> None:
        self.world.do(
            lambda session, now: set_rate(
                session, self.id, rate, operator=Operator("me", "test"), now=now
            )
        )

    def entry_point(self, assistant_id: str | None) -> None:
        self.world.do(
            lambda session, now: add_entry_point(
                session,
                self.id,
                EntryPointKind.PHONE_NUMBER,
                self.number_id,
                assistant_id=assistant_id,
                operator=Operator("me", "test"),
                now=now,
            )
        )

    def campaign(self, campaign_id: str) -> None:
        self.world.do(
            lambda session, now: add_entry_point(
                session,
                self.id,
                EntryPointKind.CAMPAIGN,
                campaign_id,
                operator=Operator("me", "test"),
                now=now,
            )
        )

    def terms(self, **changes: Any) -> None:
        self.world.do(
            lambda session, now: set_terms(
                session,
                self.id,
                replace(Terms(), **changes),
                operator=Operator("me", "test"),
                now=now,
            )
        )

    def message(self, kind: str, call_id: str | None = None, **fields: Any) -> dict[str, Any]:
        """Build a server message about a call of this organization."""
        call = {
            "id": call_id or str(uuid.uuid4()),
            "type": "inboundPhoneCall",
            "phoneNumberId": self.number_id,
            "phoneCallProviderId": f"CA{secrets.token_hex(16)}",
            "customer": {"number": "+15005550006"},
        }
        return {
            "type": kind,
            "timestamp": int(time.time() * 1000),
            "phoneNumber": {"id": self.number_id, "number": "+15005550099"},
            "call": call,
            **fields,
        }

    def calls(self) -> list[Call]:
        return self.world.read(Call, organization_id=self.id)

    def holds(self) -> list[CallHold]:
        return self.world.read(CallHold, organization_id=self.id)


def vapi_headers(sandbox) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {sandbox.info['vapi']['server_secret']}",
        "Content-Type": "application/json",
    }


def send(ingress, message: dict[str, Any], path: str = "/webhooks/vapi", **headers: str):
    """Send a server message with the credentials that Vapi sends."""
    body = json.dumps({"message": message}).encode()
    return ingress.client.post(
        path, content=body, headers={**vapi_headers(ingress.sandbox), **headers}
    )


class Signer:
    """A file of signing keys, and API tokens that are signed with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[str, bytes] = {}
        self.add("one")

    def add(self, kid: str) -> None:
        self.keys[kid] = secrets.token_bytes(32)
        self._write()

    def remove(self, kid: str) -> None:
        del self.keys[kid]
        self._write()

    def _write(self) -> None:
        listed = [
            {
                "kty": "oct",
                "kid": kid,
                "alg": "HS256",
                "k": base64.urlsafe_b64encode(key).rstrip(b"=").decode(),
            }
            for kid, key in self.keys.items()
        ]
        self.path.write_text(json.dumps({"keys": listed}))

    def token(self, organization_id: str, *scopes: str, kid: str = "one", **claims: Any) -> str:
        given = {
            "org": organization_id,
            "scope": " ".join(scopes or ("calls:write", "calls:read", "wallet:read")),
            "aud": "holdfast",
            "exp": int(time.time()) + 300,
            **claims,
        }
        given = {name: value for name, value in given.items() if value is not None}
        key = self.keys.get(kid, b"x" * 32)
        return jwt.encode(given, key, algorithm="HS256", headers={"kid": kid})

    def headers(self, organization_id: str, *scopes: str, **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(organization_id, *scopes, **claims)}"}
