"""PayPal's API about webhooks: the signing certificate and signature verification."""

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


def give_certificate(sandbox: Sandbox, request: ApiRequest) -> Answer:
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
    given: dict[str, str] = {}
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
        given[name] = value
    if not members.get("webhook_event", "").startswith("{"):
        raise invalid("/webhook_event", "MISSING_REQUIRED_PARAMETER", "The event is missing.")
    if not _WEBHOOK_ID.fullmatch(given["webhook_id"]):
        raise invalid("/webhook_id", "INVALID_PARAMETER_SYNTAX", "Not the id of a webhook.")
    genuine = _is_genuine(sandbox, given, members["webhook_event"].encode())
    return json_answer({"verification_status": "SUCCESS" if genuine else "FAILURE"})


def members_as_text(body: bytes) -> dict[str, str]:
    """Split a JSON object into its members, each with the exact text of its value.

    Raises: Rejected with status 400 if the body is not a JSON object.
    """
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    try:
        text = body.decode()
        place = _next(text, _next(text, 0) + 1)
        while text[place] != "}":
            name, place = decoder.raw_decode(text, place)
            start = _next(text, _next(text, place) + 1)
            _, place = decoder.raw_decode(text, start)
            members[name] = text[start:place]
            place = _next(text, place)
            if text[place] == ",":
                place = _next(text, place + 1)
    except (ValueError, IndexError, TypeError):
        raise problem(400, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON", "Not JSON.") from None
    return members


def _next(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place


def _is_genuine(sandbox: Sandbox, given: dict[str, str], event: bytes) -> bool:
    keys = sandbox.keys
    if given["webhook_id"] != keys.secrets.paypal_webhook_id:
        return False
    if given["auth_algo"] != "SHA256withRSA":
        return False
    if given["cert_url"].rsplit("/", 1)[-1] != keys.certificate_id:
        return False
    message = signed_text(
        given["transmission_id"], given["transmission_time"], given["webhook_id"], event
    )
    try:
        signature = base64.b64decode(given["transmission_sig"], validate=True)
        keys.signer.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error):
        return False
    return True
