"""The API's OpenAPI 3.1 description. A test compares it with the routes."""

from __future__ import annotations

from typing import Any

from base.facts import CALL_DURATION_MS_MAX
from domain.calls.settings import DURATION_SECONDS_MAX

_TEXT = {"type": "string", "minLength": 1, "maxLength": 64}
_RESERVE = (
    "Pass the answer's `assistantOverrides` unchanged in Vapi's POST /call: its metadata proves by"
    " the `pairingToken` that Vapi's reports are about this reservation. Or name Vapi's id as"
    " `vapiCallId`, now or in a second request for the same `callId`; if Vapi has reported that"
    " call already, both become one call with one hold and one charge. Whoever holds the token can"
    " pair a call with the reservation: do not give it to a browser."
)
_COMMIT = (
    "`vapiCallId` pairs a reservation that is not paired yet. Without it, a commit of an unpaired"
    " reservation is refused with 409 UNPAIRED_CALL while Vapi has reported an unpaired outgoing"
    " call that may be the same one: send it again with `vapiCallId`, or with `durationSeconds` 0"
    " if the call was never made. FOREIGN_NUMBER: the call came by a number or an assistant of"
    " another organization, which pays for it. CALL_IN_PROGRESS: somebody still talks."
)
_PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["title", "status"],
}
_PROBLEM = {
    "description": "A problem (RFC 9457); its title is a code of ours",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


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
        ),
        "/api/billing/wallet": _read("The wallet's figures", "wallet:read"),
        "/api/wallet/balance": _read("The wallet's figures", "wallet:read"),
        "/api/billing/wallet/transactions": _read(
            "A page of entries, the newest first", "wallet:read", "limit", "cursor"
        ),
        "/api/calls/costs": _read("What calls cost by day", "calls:read", "from", "to"),
        "/api/calls/{id}": _read("A call by any of its ids", "calls:read", path="id"),
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
        ),
    }


def _up_to(highest: int) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "maximum": highest}


def _posted(
    summary: str,
    scope: str,
    properties: dict[str, Any],
    required: list[str],
    description: str = "",
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
            "responses": _responses(
                "400", "401", "402", "403", "404", "408", "409", "413", "415", "503"
            ),
        }
    }


def _read(summary: str, scope: str, *query: str, path: str | None = None) -> dict[str, Any]:
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
            "responses": _responses("400", "401", "403", "404", "503"),
        }
    }


def _responses(*problems: str) -> dict[str, Any]:
    done = {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"200": done, **dict.fromkeys(problems, _PROBLEM)}
