"""Every type of server message, with its required fields, for the control plane.

events.py builds the messages of a call's life. A type that is not listed can be sent too, because
Vapi adds types. Its message then has only the given fields.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from sandbox.exchange import Json, iso_ms
from sandbox.vapi.admission import read_object
from sandbox.vapi.calls import LiveCall
from sandbox.vapi.events import assistant_request, call_fields, end_of_call_report, status_update
from sandbox.vapi.state import epoch_ms

_CONVERSATION: list[Json] = [{"role": "assistant", "content": "Hello."}]

_BUILDERS: dict[str, Callable[[LiveCall], Json]] = {
    "assistant-request": assistant_request,
    "status-update": status_update,
    "end-of-call-report": end_of_call_report,
}


def build_message(kind: str, call: LiveCall | None, account_id: str) -> Json:
    """Build a message of the type, about the call if there is one."""
    if call is not None and kind in _BUILDERS:
        return _BUILDERS[kind](call)
    message: Json = {"type": kind, "timestamp": epoch_ms()} | _fields(kind, account_id)
    return message if call is None else message | call_fields(call)


def allows_call(result: Json) -> bool:
    """Return whether the response to campaign.predial allows the call.

    Any response other than a boolean true means that the contact is not called.
    """
    answer = read_object(result)
    return answer is not None and answer.get("eligible") is True


def _fields(kind: str, account_id: str) -> Json:
    match kind.partition(".")[0]:
        case "chat":
            return {"chat": _resource_fields(account_id) | {"input": "Hello.", "output": []}}
        case "session":
            return {"session": _resource_fields(account_id) | {"status": "active"}}
    if kind == "campaign.predial":
        campaign_id = str(uuid4())
        contact = _resource_fields(account_id) | {
            "campaignId": campaign_id,
            "number": "+15005550006",
        }
        return {"campaignId": campaign_id, "contact": contact}
    if kind == "tool-calls":
        return _tool_calls()
    return dict(_FIXED_FIELDS.get(kind, {}))


def _resource_fields(account_id: str) -> Json:
    now = iso_ms()
    return {"id": str(uuid4()), "orgId": account_id, "createdAt": now, "updatedAt": now}


def _tool_calls() -> Json:
    tool_call = {
        "id": f"call_{uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": "look_up", "arguments": {"number": 1}},
    }
    tool = {"type": "function", "name": "look_up", "toolCall": tool_call}
    return {"toolCallList": [tool_call], "toolWithToolCallList": [tool]}


_FIXED_FIELDS: dict[str, Json] = {
    "assistant.speechStarted": {"text": "Hello.", "turn": 0, "source": "model"},
    "assistant.started": {"newAssistant": {"name": "Assistant"}},
    "call.artifact.upload": {"artifactType": "recording"},
    "call.delete.failed": {},
    "call.deleted": {},
    "call.endpointing.request": {"messagesOpenAIFormatted": _CONVERSATION},
    "conversation-update": {"messages": [], "messagesOpenAIFormatted": _CONVERSATION},
    "handoff-destination-request": {"parameters": {}},
    "hang": {},
    "knowledge-base-request": {"messages": [], "messagesOpenAIFormatted": _CONVERSATION},
    "language-change-detected": {"language": "en"},
    "model-output": {"output": "Hello."},
    "phone-call-control": {"request": "hang-up"},
    "speech-update": {"status": "started", "role": "assistant", "turn": 0},
    "status-update": {"status": "in-progress", "artifact": {}},
    "end-of-call-report": {"endedReason": "customer-ended-call", "artifact": {}, "analysis": {}},
    "transcript": {"role": "user", "transcriptType": "final", "transcript": "Hello."},
    "transfer-destination-request": {},
    "transfer-update": {"destination": {"type": "number", "number": "+15005550007"}},
    "user-interrupted": {"turnId": "turn_1"},
    "voice-input": {"input": "Hello."},
    "voice-request": {"text": "Hello.", "sampleRate": 24_000},
}
