"""Vapi's API: calls, phone numbers, assistants, and the control URL of a call.

Source: Vapi's published specification and its page on call features.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sandbox.core import Sandbox
from sandbox.exchange import Answer, ApiRequest, Json, Rejected, json_answer, same_secret
from sandbox.gate import Handler
from sandbox.vapi.admission import wrong_in_overrides
from sandbox.vapi.calls import LiveCall
from sandbox.vapi.life import run_call, start_leg

#: Control messages that are accepted without effect, beside end-call and say.
_IGNORED_TYPES = frozenset({"add-message", "append-context", "control", "transfer", "handoff"})
#: Seconds that each blank-separated part of a text takes to speak, and the maximum for a text.
_WORD_SECONDS = 0.05
_SPEECH_SECONDS_MAX = 2.0
#: Fields that POST /call accepts here. A call at Vapi has no metadata of its own, so `metadata` is
#: not among them.
_CALL_FIELDS = ("assistantId", "assistantOverrides", "customer", "name", "phoneNumberId")
_NAME_LENGTH_MAX = 40


def _error(status: int, kind: str, message: str) -> Rejected:
    body = {"statusCode": status, "error": kind, "message": message}
    return Rejected(json_answer(body, status))


def _require_key(act: Callable[[Sandbox, ApiRequest], Answer]) -> Handler:
    def check_and_act(sandbox: Sandbox, request: ApiRequest) -> Answer:
        if not same_secret(request.bearer(), sandbox.keys.secrets.vapi_api_key):
            raise _error(401, "Unauthorized", "Invalid Key.")
        return act(sandbox, request)

    return check_and_act


def get_call(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /call/{id}."""
    return json_answer(_find_call(sandbox, request).shown)


def create_call(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer POST /call: start one outbound call immediately.

    No assistant-request is sent. The assistant and its overrides are those in the API request.
    """
    body = request.json() or {}
    if error := _call_error(sandbox, body):
        raise _error(400, "Bad Request", error)
    number = sandbox.vapi.numbers[body["phoneNumberId"]]
    call = sandbox.vapi.add_call(
        sandbox.api_url("vapi"), "outboundPhoneCall", body["customer"]["number"], number
    )
    if "name" in body:
        call.shown["name"] = body["name"]
    assistant = sandbox.vapi.assistants[body["assistantId"]]
    sandbox.vapi.connect(call, assistant, body.get("assistantOverrides") or {})
    account = sandbox.twilio.accounts.get(number.shown.get("twilioAccountSid", ""))
    if account is not None:
        start_leg(sandbox, call, account, number.shown["number"], number.leg_callback_url)
    sandbox.courier.spawn(run_call(sandbox, call))
    return json_answer(call.shown, 201)


def _call_error(sandbox: Sandbox, body: Json) -> str:
    for field in body:
        if field not in _CALL_FIELDS:
            return f"property {field} should not exist"
    customer, name = body.get("customer"), body.get("name", "")
    if not isinstance(customer, dict) or not str(customer.get("number", "")).startswith("+"):
        return "customer.number must be a valid phone number in the E.164 format"
    if not isinstance(name, str) or len(name) > _NAME_LENGTH_MAX:
        return f"name must be at most {_NAME_LENGTH_MAX} characters"
    if str(body.get("phoneNumberId", "")) not in sandbox.vapi.numbers:
        return "Couldn't Get Phone Number. It May Not Exist."
    if str(body.get("assistantId", "")) not in sandbox.vapi.assistants:
        return "Couldn't Get Assistant. It May Not Exist."
    return wrong_in_overrides(body.get("assistantOverrides") or {})


def list_numbers(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /phone-number."""
    return json_answer([number.shown for number in sandbox.vapi.numbers.values()])


def get_number(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /phone-number/{id}."""
    number = sandbox.vapi.numbers.get(request.params["id"])
    if number is None:
        raise _error(404, "Not Found", "Phone number not found.")
    return json_answer(number.shown)


def list_assistants(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /assistant."""
    return json_answer(list(sandbox.vapi.assistants.values()))


def get_assistant(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer GET /assistant/{id}."""
    assistant = sandbox.vapi.assistants.get(request.params["id"])
    if assistant is None:
        raise _error(404, "Not Found", "Assistant not found.")
    return json_answer(assistant)


def control_call(sandbox: Sandbox, request: ApiRequest) -> Answer:
    """Answer a POST to a live call's control URL, which requires no key.

    Success means that the message was accepted, not that the call has ended. A deaf call accepts
    the message and ignores it.
    """
    call = _find_call(sandbox, request)
    if call.over:
        raise _error(404, "Not Found", "Call not found.")
    body = request.json() or {}
    kind = body.get("type")
    if kind not in ("end-call", "say", *_IGNORED_TYPES):
        raise _error(400, "Bad Request", "Unknown type.")
    behaviour = sandbox.vapi.behaviour_of(call)
    is_obeyed = not (behaviour.deaf or (behaviour.deaf_to_say and kind == "say"))
    call.note_order(kind, is_obeyed)
    if is_obeyed and kind == "end-call":
        call.end("manually-canceled")
    if is_obeyed and kind == "say":
        text = str(body.get("content", ""))
        speaking = _speak(call, text, then_end=body.get("endCallAfterSpoken") is True)
        sandbox.courier.spawn(speaking)
    return json_answer({"success": True})


async def _speak(call: LiveCall, text: str, *, then_end: bool) -> None:
    speech = call.note_speech(text)
    seconds = min(len(text.split()) * _WORD_SECONDS, _SPEECH_SECONDS_MAX)
    await call.wait_until_end(seconds)
    if call.over:
        return
    speech["finished"] = time.monotonic()
    call.changed()
    if then_end:
        call.end("assistant-said-message-with-end-call-enabled")


def _find_call(sandbox: Sandbox, request: ApiRequest) -> LiveCall:
    call = sandbox.vapi.calls.get(request.params["id"])
    if call is None:
        raise _error(404, "Not Found", "Call not found.")
    return call


def operations() -> list[tuple[str, str, Handler]]:
    """List Vapi's operations: method, path, handler."""
    return [
        ("POST", "/call", _require_key(create_call)),
        ("GET", "/call/{id}", _require_key(get_call)),
        ("POST", "/call/{id}/control", control_call),
        ("GET", "/phone-number", _require_key(list_numbers)),
        ("GET", "/phone-number/{id}", _require_key(get_number)),
        ("GET", "/assistant", _require_key(list_assistants)),
        ("GET", "/assistant/{id}", _require_key(get_assistant)),
    ]
