"""The API's OpenAPI 3.1 description. A test compares it with the routes."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from base.facts import CALL_DURATION_MS_MAX
from base.problems import calls, requests, wallet
from base.problems.code import Code
from base.problems.details import MEDIA_TYPE
from base.problems.registry import CODES
from domain.calls.settings import DURATION_SECONDS_MAX

_TEXT = {"type": "string", "minLength": 1, "maxLength": 64}
_RESERVE = (
    "Pass the answer's `assistantOverrides` unchanged in Vapi's POST /call: its metadata proves by"
    " the `pairingToken` that Vapi's reports are about this reservation. Or name Vapi's id as"
    " `vapiCallId`, now or in a second request for the same `callId`; if Vapi has reported that"
    " call already, both become one call with one hold and one charge. A client with the token can"
    " pair any call with the reservation: do not give it to a browser."
)
_COMMIT = (
    "`vapiCallId` pairs a reservation that is not paired yet. Without it, a commit of an unpaired"
    " reservation is refused with 409 UNPAIRED_CALL while Vapi has reported an unpaired outgoing"
    " call that may be the same one: send it again with `vapiCallId`, or with `durationSeconds` 0"
    " if the call was never made. FOREIGN_NUMBER: the call came by a number or an assistant of"
    " another organization, which pays for it. CALL_IN_PROGRESS: the call has not ended."
)
_PROBLEM_SCHEMA = {
    "type": "object",
    "description": "A problem (RFC 9457). Decide by its code; new codes may be added.",
    "properties": {
        "type": {"type": "string", "description": "GET it for the code's documentation."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "examples": list(CODES)},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "code"],
}
#: Codes of each operation with a token, and further codes of those with a body.
_OF_ALL = (
    requests.MALFORMED_REQUEST,
    requests.UNAUTHENTICATED,
    requests.FORBIDDEN,
    requests.INTERNAL_ERROR,
    requests.API_NOT_CONFIGURED,
    requests.TEMPORARILY_UNAVAILABLE,
    requests.OUTCOME_UNKNOWN,
)
_OF_BODIES = (
    requests.REQUEST_TIMEOUT,
    requests.BODY_TOO_LARGE,
    requests.UNSUPPORTED_MEDIA_TYPE,
)
_OF_RESERVE = (
    wallet.SUBSCRIPTION_INACTIVE,
    wallet.FROZEN_WALLET,
    wallet.INSUFFICIENT_FUNDS,
    wallet.WALLET_NOT_FOUND,
    wallet.IDEMPOTENCY_CONFLICT,
    wallet.INVALID_AMOUNT,
    calls.CALL_SETTLED,
    calls.INVALID_DURATION,
    calls.NO_RATE,
)
_OF_COMMIT = (
    wallet.IDEMPOTENCY_CONFLICT,
    wallet.INVALID_AMOUNT,
    calls.CALL_NOT_FOUND,
    calls.CALL_IN_PROGRESS,
    calls.CALL_SETTLED,
    calls.UNPAIRED_CALL,
    calls.FOREIGN_NUMBER,
    calls.NO_RATE,
)


def document() -> dict[str, Any]:
    """Describe every route of the API."""
    token = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast", "version": "1"},
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": token},
            "schemas": {"Problem": _PROBLEM_SCHEMA},
        },
    }


def _paths() -> dict[str, Any]:
    of_wallet = (wallet.WALLET_NOT_FOUND,)
    return {
        "/api/billing/reserve-credits": _posted(
            "Set aside what a call is estimated to cost",
            "calls:write",
            {
                "callId": _TEXT,
                "vapiCallId": _TEXT,
                "estimatedMinutes": _up_to(DURATION_SECONDS_MAX // 60),
                "to": {"type": "string", "maxLength": 16},
                "appointmentId": _TEXT,
            },
            ["callId", "estimatedMinutes"],
            description=_RESERVE,
            codes=_OF_RESERVE,
        ),
        "/api/billing/commit-credits": _posted(
            "Charge a call for its duration and give back the rest",
            "calls:write",
            {
                "callId": _TEXT,
                "durationSeconds": _up_to(CALL_DURATION_MS_MAX // 1000),
                "vapiCallId": _TEXT,
            },
            ["callId", "durationSeconds"],
            description=_COMMIT,
            codes=_OF_COMMIT,
        ),
        "/api/billing/wallet": _read("The wallet's figures", "wallet:read", codes=of_wallet),
        "/api/wallet/balance": _read("The wallet's figures", "wallet:read", codes=of_wallet),
        "/api/billing/wallet/transactions": _read(
            "A page of entries, the newest first",
            "wallet:read",
            "limit",
            "cursor",
            codes=of_wallet,
        ),
        "/api/calls/costs": _read("What calls cost by day", "calls:read", "from", "to"),
        "/api/calls/{id}": _read(
            "A call by any of its ids", "calls:read", path="id", codes=(calls.CALL_NOT_FOUND,)
        ),
        "/api/vapi/webhook/status-check": _posted(
            "Whether a call must end now, and how long it may go on",
            "calls:read",
            {
                "call": {"type": "object", "properties": {"id": _TEXT}, "required": ["id"]},
                "message": {
                    "type": "object",
                    "properties": {"durationSeconds": _up_to(DURATION_SECONDS_MAX)},
                },
            },
            ["call"],
            codes=(requests.UNVERIFIED_WEBHOOK, calls.CALL_NOT_FOUND),
        ),
        "/problems/{code}": _problem_page(),
    }


def _up_to(highest: int) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "maximum": highest}


def _posted(
    summary: str,
    scope: str,
    properties: dict[str, Any],
    required: list[str],
    description: str = "",
    *,
    codes: Iterable[Code],
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return {
        "post": {
            "summary": summary,
            **({"description": description} if description else {}),
            "security": [{"token": [scope]}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": _responses((*codes, *_OF_ALL, *_OF_BODIES)),
        }
    }


def _read(
    summary: str, scope: str, *query: str, path: str | None = None, codes: Iterable[Code] = ()
) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in query
    ]
    if path is not None:
        parameters.append({"name": path, "in": "path", "required": True, "schema": _TEXT})
    return {
        "get": {
            "summary": summary,
            "security": [{"token": [scope]}],
            "parameters": parameters,
            "responses": _responses((*codes, *_OF_ALL)),
        }
    }


def _problem_page() -> dict[str, Any]:
    return {
        "get": {
            "summary": "What a code means, what it means for money, and what to do next",
            "security": [],
            "parameters": [{"name": "code", "in": "path", "required": True, "schema": _TEXT}],
            "responses": _responses((requests.NOT_FOUND, requests.INTERNAL_ERROR)),
        }
    }


def _responses(codes: Iterable[Code]) -> dict[str, Any]:
    """Describe 200 and, for each status, the codes that the operation answers with it."""
    done = {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}}
    by_status: dict[int, list[Code]] = {}
    for code in codes:
        by_status.setdefault(code.status, []).append(code)
    return {"200": done} | {
        str(status): _problem(status, same) for status, same in sorted(by_status.items())
    }


def _problem(status: int, codes: list[Code]) -> dict[str, Any]:
    texts = "\n".join(f"- `{code}`: {code.title}" for code in codes)
    schema = {
        "allOf": [{"$ref": "#/components/schemas/Problem"}],
        "properties": {"code": {"enum": codes}},
    }
    return {
        "description": f"{HTTPStatus(status).phrase}\n\n{texts}",
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
