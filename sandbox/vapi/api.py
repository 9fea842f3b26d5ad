"""Vapi's API: one call read back, and the control address of a living call.

Source: Vapi's published specification and its page on call features.
"""

from __future__ import annotations

import asyncio

from sandbox.core import Sandbox
from sandbox.exchange import Answer, Call, json_answer, same_secret
from sandbox.gate import Handler
from sandbox.vapi.state import LiveCall

#: What a control address takes beside end-call and say, without a hang-up following.
_OTHER_TYPES = frozenset({"add-message", "append-context", "control", "transfer", "handoff"})
#: Seconds that speaking one word takes, and the most that any speech does.
_WORD_SECONDS = 0.05
_SPEECH_SECONDS_MAX = 2.0


def get_call(sandbox: Sandbox, call: Call) -> Answer:
    """This function will answer GET /call/{id}."""
    if not same_secret(call.bearer(), sandbox.keys.secrets.vapi_api_key):
        return _error(401, "Unauthorized", "Invalid Key.")
    found = sandbox.vapi.calls.get(call.params["id"])
    if found is None:
        return _error(404, "Not Found", "Call not found.")
    return json_answer(found.shown)


def control_call(sandbox: Sandbox, call: Call) -> Answer:
    """This function will answer a POST to the control address: no key, and only while it lives.

    The answer says that the order was taken, not that the call is over.
    """
    found = sandbox.vapi.calls.get(call.params["id"])
    if found is None or found.shown["status"] == "ended":
        return _error(404, "Not Found", "Call not found.")
    asked = call.json() or {}
    match asked.get("type"):
        case "end-call":
            found.end("manually-canceled")
        case "say":
            if asked.get("endCallAfterSpoken") is True:
                words = len(str(asked.get("content", "")).split())
                seconds = min(words * _WORD_SECONDS, _SPEECH_SECONDS_MAX)
                sandbox.courier.spawn(_speak_and_end(found, seconds))
        case other if other not in _OTHER_TYPES:
            return _error(400, "Bad Request", "Unknown type.")
    return json_answer({"success": True})


async def _speak_and_end(call: LiveCall, seconds: float) -> None:
    await asyncio.sleep(seconds)
    call.end("assistant-said-message-with-end-call-enabled")


def _error(status: int, kind: str, message: str) -> Answer:
    return json_answer({"statusCode": status, "error": kind, "message": message}, status)


def operations() -> list[tuple[str, str, Handler]]:
    """This function will list Vapi's operations: method, path, handler."""
    return [
        ("GET", "/call/{id}", get_call),
        ("POST", "/call/{id}/control", control_call),
    ]
