"""Admission of an inbound call: how Vapi finds the call's assistant.

The assistant is the phone number's own, or the one in the response to an assistant-request. Vapi
waits 7.5 seconds for that response, whatever else is configured. If the response is late or
invalid, the call ends before it begins.

Source: Vapi's pages on server events and ended reasons.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

from sandbox.core import Sandbox
from sandbox.delivery import accepted
from sandbox.exchange import Json, iso_ms
from sandbox.vapi.calls import LiveCall
from sandbox.vapi.events import assistant_request, parcel
from sandbox.vapi.state import is_allowed_duration

_PREFIX = "assistant-request-"


@dataclass(frozen=True)
class Reading:
    """The meaning of a response: an assistant, or the reason why the call ends."""

    reason: str = ""
    #: Text that is spoken to the caller before the call ends.
    speech: str = ""
    assistant: Json | None = None
    overrides: Json = field(default_factory=dict)


async def find_assistant(sandbox: Sandbox, call: LiveCall, limit_seconds: float) -> None:
    """Connect a ringing call with its assistant, or end the call."""
    number = {} if call.number is None else call.number.shown
    if "assistantId" in number:
        sandbox.vapi.connect(call, sandbox.vapi.assistants[number["assistantId"]], {})
        return
    # The call has no assistant yet, so the request goes to the number's server.
    sandbox.vapi.connect(call, None, {})
    call.decision = _undecided(limit_seconds)
    answer = sandbox.courier.spawn(_ask(sandbox, call, call.decision))
    gone = sandbox.courier.spawn(call.hang_up.wait())
    await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
    if call.over:
        # The caller has hung up. The response is still recorded when it arrives, but has no effect.
        call.decision["verdict"] = "not needed"
        return
    gone.cancel()
    reading = read_answer(sandbox, answer.result())
    if reading.reason:
        call.decision |= {"verdict": "refused", "reason": reading.reason}
        if reading.speech:
            call.note_speech(reading.speech)["finished"] = time.monotonic()
        call.end(reading.reason)
        return
    call.decision["verdict"] = "admitted"
    sandbox.vapi.connect(call, reading.assistant, reading.overrides)


def read_answer(sandbox: Sandbox, result: Json) -> Reading:
    """Read the response to an assistant-request."""
    answer = read_object(result)
    if answer is None:
        return Reading(_PREFIX + "failed")
    if "error" in answer:
        return _refusal(answer["error"])
    if answer.get("destination"):
        return Reading(_PREFIX + "returned-forwarding-phone-number")
    if answer.get("assistantId") or answer.get("assistant"):
        return _assistant(sandbox, answer)
    return Reading(_PREFIX + "returned-no-assistant")


def read_object(result: Json) -> Json | None:
    """Return the JSON object of a 2xx response, or None for any other response."""
    try:
        answer = json.loads(result["body"]) if accepted(result) else None
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _refusal(error: object) -> Reading:
    # Vapi speaks the error to the caller and ignores every other field.
    if isinstance(error, str) and error.strip():
        return Reading(_PREFIX + "returned-error", speech=error)
    return Reading(_PREFIX + "returned-unspeakable-error")


def _assistant(sandbox: Sandbox, answer: Json) -> Reading:
    invalid = Reading(_PREFIX + "returned-invalid-assistant")
    if answer.get("assistantId"):
        assistant = sandbox.vapi.assistants.get(str(answer["assistantId"]))
    else:
        given = answer["assistant"]
        assistant = given if isinstance(given, dict) else None
    overrides = answer.get("assistantOverrides") or {}
    if assistant is None or wrong_in_overrides(overrides):
        return invalid
    if not is_allowed_duration(assistant.get("maxDurationSeconds", 600)):
        return invalid
    return Reading(assistant=assistant, overrides=overrides)


def wrong_in_overrides(overrides: object) -> str:
    """Return why Vapi refuses the assistantOverrides; blank if it accepts them."""
    if not isinstance(overrides, dict):
        return "assistantOverrides must be an object"
    if not is_allowed_duration(overrides.get("maxDurationSeconds", 600)):
        return "assistantOverrides.maxDurationSeconds must be a number from 10 to 43200"
    if not isinstance(overrides.get("metadata", {}), dict):
        return "assistantOverrides.metadata must be an object"
    return ""


def _undecided(limit_seconds: float) -> Json:
    return {
        "verdict": "pending",
        "reason": None,
        "limit_seconds": limit_seconds,
        "asked_at": iso_ms(),
        "asked": time.monotonic(),
        "answered_at": None,
        "answered": None,
        "status_code": None,
        "body": None,
        "error": None,
    }


async def _ask(sandbox: Sandbox, call: LiveCall, decision: Json) -> Json:
    addressed = parcel(sandbox, assistant_request(call), call.server_url)
    result = await sandbox.courier.ask(addressed, decision["limit_seconds"])
    decision |= {
        "answered_at": iso_ms(),
        "answered": time.monotonic(),
        "status_code": result["status_code"],
        "body": result["body"],
        "error": result["error"],
    }
    return result
