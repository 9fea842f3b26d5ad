"""PayPal's webhook operations: serve the signing certificate, verify a signature."""

from __future__ import annotations

import base64
import binascii
import json
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sandbox.core import Sandbox
from sandbox.exchange import Answer, ApiRequest, json_answer
from sandbox.paypal.events import signed_text
from sandbox.paypal.problems import invalid, problem

_WEBHOOK_ID = re.compile(r"[a-zA-Z0-9]{1,50}")


def serve_certificate(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /v1/notifications/certs/{name} with the leaf certificate as PEM."""
    if request.params["name"] != sandbox.keys.certificate_id:
        raise problem(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID", "No such certificate.")
    return Answer(200, sandbox.keys.certificate_pem, "application/x-pem-file")


def verify_signature(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /v1/notifications/verify-webhook-signature.

    The event is verified as the exact text that was sent. Serializing it again would change its
    CRC32.
    """
    members = members_as_text(request.body)
    fields: dict[str, str] = {}
    for name in (
        "auth_algo",
        "cert_url",
        "transmission_id",
        "transmission_sig",
        "transmission_time",
        "webhook_id",
    ):
        value = json.loads(members.get(name, "null"))
        if not isinstance(value, str) or not value:
            raise invalid(f"/{name}", "MISSING_REQUIRED_PARAMETER", "A required field is missing.")
        fields[name] = value
    if not members.get("webhook_event", "").startswith("{"):
        raise invalid("/webhook_event", "MISSING_REQUIRED_PARAMETER", "The event is missing.")
    if not _WEBHOOK_ID.fullmatch(fields["webhook_id"]):
        raise invalid("/webhook_id", "INVALID_PARAMETER_SYNTAX", "Not the id of a webhook.")
    is_genuine = _is_genuine(sandbox, fields, members["webhook_event"].encode())
    return json_answer({"verification_status": "SUCCESS" if is_genuine else "FAILURE"})


def members_as_text(body: bytes) -> dict[str, str]:
    """Split a JSON object into its members, each with the exact text of its value.

    Raises: Rejected with status 400 if the body is not a JSON object.
    """
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    try:
        text = body.decode()
        position = _skip_whitespace(text, _skip_whitespace(text, 0) + 1)
        while text[position] != "}":
            name, position = decoder.raw_decode(text, position)
            start = _skip_whitespace(text, _skip_whitespace(text, position) + 1)
            _, position = decoder.raw_decode(text, start)
            members[name] = text[start:position]
            position = _skip_whitespace(text, position)
            if text[position] == ",":
                position = _skip_whitespace(text, position + 1)
    except (ValueError, IndexError, TypeError):
        raise problem(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON", "Not JSON.") from None
    return members


def _skip_whitespace(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def _is_genuine(sandbox: Sandbox, fields: dict[str, str], event: bytes) -> bool:
    keys = sandbox.keys
    if fields["webhook_id"] != keys.secrets.paypal_webhook_id:
        return False
    if fields["auth_algo"] != "SHA256withRSA":
        return False
    if fields["cert_url"].rsplit("/", 1)[-1] != keys.certificate_id:
        return False
    message = signed_text(
        fields["transmission_id"], fields["transmission_time"], fields["webhook_id"], event
    )
    try:
        signature = base64.b64decode(fields["transmission_sig"], validate=True)
        keys.signer.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error):
        return False
    return True
