"""Authenticates Vapi's server messages, and builds those about a call's life.

Like Vapi, the stand-in does not repeat a message by default: a lost report is lost.
"""

from __future__ import annotations

import hmac
import json
import time
from typing import Literal

from sandbox.core import Sandbox
from sandbox.delivery import Parcel
from sandbox.exchange import Json
from sandbox.vapi.calls import LiveCall
from sandbox.vapi.state import Authentication, epoch_ms

#: A wrong credential, a body changed after signing, or a signature made an hour ago.
Forgery = Literal["credential", "body", "stale"]
#: Age of a stale signature, in seconds.
_STALE_SECONDS = 3600


def sign(secret: str, algorithm: str, timestamp: str, body: bytes) -> str:
    """Return the hex signature over `{timestamp}.{body}`.

    Source: Vapi's page on server authentication, an HMAC credential with its defaults.
    """
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, algorithm).hexdigest()


def parcel(sandbox: Sandbox, message: Json, url: str = "", forge: Forgery | None = None) -> Parcel:
    """Authenticate a server message and address it.

    `url` is the server address that an assistant or a number names; blank is the ingress.
    """
    body = json.dumps({"message": message}, separators=(",", ":")).encode()
    proof_headers = _proof_headers(sandbox, body, forge)
    if forge == "body":
        body = body[:-1] + b" }"
    return Parcel(
        provider="vapi",
        event_id=message.get("call", {}).get("id", ""),
        event_type=message["type"],
        transmission_id="",
        url=url or sandbox.webhook_url("vapi"),
        headers={"Content-Type": "application/json", "User-Agent": "vapi"} | proof_headers,
        body=body,
    )


def call_fields(call: LiveCall) -> Json:
    """Return the fields that every message about a call has."""
    fields: Json = {"customer": call.shown["customer"], "call": dict(call.shown)}
    if call.number is not None:
        fields["phoneNumber"] = dict(call.number.shown)
    return fields


def assistant_request(call: LiveCall) -> Json:
    """Build the message that requests the assistant of an inbound call."""
    return {"type": "assistant-request", "timestamp": epoch_ms()} | call_fields(call)


def status_update(call: LiveCall) -> Json:
    """Build a status-update with the call's current status."""
    message: Json = {
        "type": "status-update",
        "status": call.shown["status"],
        "timestamp": epoch_ms(),
        "artifact": {},
    }
    if call.shown["status"] == "ended":
        message["endedReason"] = call.shown["endedReason"]
        if call.decision is not None and call.decision["verdict"] == "refused":
            message["inboundPhoneCallDebuggingArtifacts"] = {
                "assistantRequestError": call.decision["error"] or call.decision["reason"]
            }
    return message | call_fields(call)


def end_of_call_report(call: LiveCall) -> Json:
    """Build the report of an ended call. A call that was not answered has no start."""
    cost = call.shown["cost"]
    message: Json = {
        "type": "end-of-call-report",
        "endedReason": call.shown["endedReason"],
        "timestamp": epoch_ms(),
        "endedAt": call.shown["endedAt"],
        "cost": cost,
        "costs": [{"type": "vapi", "minutes": round(call.seconds() / 60, 4), "cost": cost}],
        "costBreakdown": {"vapi": cost, "total": cost},
        "durationSeconds": round(call.seconds(), 3),
        "artifact": {},
        "analysis": {},
    }
    if "startedAt" in call.shown:
        message["startedAt"] = call.shown["startedAt"]
    return message | call_fields(call)


def _proof_headers(sandbox: Sandbox, body: bytes, forge: Forgery | None) -> dict[str, str]:
    authentication, secrets = sandbox.vapi.authentication, sandbox.keys.secrets
    wrong_secret = "not the secret" if forge == "credential" else ""
    match authentication.mode:
        case "bearer":
            return {"Authorization": f"Bearer {wrong_secret or secrets.vapi_server_secret}"}
        case "x-vapi-secret":
            return {"X-Vapi-Secret": wrong_secret or secrets.vapi_server_secret}
        case "hmac":
            timestamp = _timestamp(authentication, forge)
            secret = wrong_secret or secrets.vapi_hmac_secret
            signature = sign(secret, authentication.algorithm, timestamp, body)
            return {"x-signature": signature, "x-timestamp": timestamp}
        case "none":
            return {}


def _timestamp(authentication: Authentication, forge: Forgery | None) -> str:
    seconds = time.time() - (_STALE_SECONDS if forge == "stale" else 0)
    return str(int(seconds * 1000 if authentication.timestamp_unit == "ms" else seconds))
