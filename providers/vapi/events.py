"""Parses Vapi's server messages, names the reported facts, and builds the answers.

The member `type` decides how a message is read. The SDK's models are not used, because their union
parses every message as an assistant-request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from base.enums import CallDirection, Queue
from base.facts import (
    CALL_DURATION_MS_MAX,
    AdmissionRequest,
    CallReport,
    OtherReport,
    PermissionRequest,
    Report,
)
from base.masking import last_digits
from providers.errors import MalformedWebhook
from providers.vapi import lean
from providers.vapi.fields import MILLISECONDS_FROM, object_in, read_object
from providers.vapi.mapping import (
    ID_LENGTH_MAX,
    account_of,
    call_facts,
    call_id_of,
    direction_of,
    leg_of,
    number_of,
    text_of,
)

#: The two types that report a call's progress.
STATUS_UPDATE = "status-update"
END_OF_CALL_REPORT = "end-of-call-report"
ASSISTANT_REQUEST = "assistant-request"
PREDIAL = "campaign.predial"
_ENDED = "ended"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Types that are verified, counted and answered, but not stored. Many arrive every second, and
#: nothing follows from them. "hang" means that the assistant is slow, not that a party hung up.
_IGNORED_TYPES = frozenset(
    {
        "hang",
        "conversation-update",
        "transcript",
        "speech-update",
        "model-output",
        "user-interrupted",
        "transfer-update",
        "language-change-detected",
        "language-changed",
        "voice-input",
        "phone-call-control",
    }
)
#: Answers to questions that other servers decide. Each is valid and has no effect.
#: Source: Vapi's SDK 3.0.0, server_message_response_*. It requires `data`, `timeoutSeconds` and
#: `destination`. 0.5 s is the schema's own example of a pause that ends a speaker's turn.
_EMPTY_ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "tool-calls": {"results": []},
    "function-call": {"results": []},
    "knowledge-base-request": {"documents": []},
    "voice-request": {"data": ""},
    "call.endpointing.request": {"timeoutSeconds": 0.5},
    "transfer-destination-request": {},
    "handoff-destination-request": {
        "destination": {},
        "error": "No destination is configured on this server.",
    },
}
#: The types whose answer Vapi uses.
ANSWERED_TYPES = frozenset({ASSISTANT_REQUEST, PREDIAL, *_EMPTY_ANSWERS})
_IGNORED_PREFIXES = ("transcript[", "assistant.", "chat.", "session.")
#: Characters of the longest type that is stored.
_TYPE_LENGTH_MAX = 100
#: Characters of the longest event name, and of the digest that replaces the end of a longer one.
_EXTERNAL_ID_LENGTH_MAX = 200
_DIGEST_LENGTH = 32
#: Characters of the longest status or reason that is read into a name.
_PART_LENGTH_MAX = 200
#: A larger timestamp is invalid. In milliseconds, it would be after the year 5138.
_MILLISECONDS_MAX = 10**14


@dataclass(frozen=True)
class VapiMessage:
    """One server message. Numbers with a decimal point in `content` are Decimals."""

    type: str
    #: When Vapi claims to have sent it, in milliseconds since 1970; None if missing or invalid.
    sent_ms: int | None
    content: Mapping[str, Any]
    body: bytes


def parse(body: bytes) -> VapiMessage:
    """Read a server message's envelope; reduce a large message to its facts.

    Raises: MalformedWebhook if the body is not a JSON object in UTF-8 with a message that has a
    type, or repeats a key at any depth. With a repeated key, two readers could see two messages.
    """
    try:
        is_large = len(body) > lean.LEAN_FROM_BYTES
        envelope = lean.read_message(body) if is_large else read_object(body)
    except ValueError:
        raise MalformedWebhook("the body is not a JSON object") from None
    message = envelope.get("message")
    if not isinstance(message, dict):
        raise MalformedWebhook("the body has no message")
    kind = message.get("type")
    if not isinstance(kind, str) or not 0 < len(kind) <= _TYPE_LENGTH_MAX or not kind.isprintable():
        raise MalformedWebhook("the message has no type")
    return VapiMessage(kind, _milliseconds_of(message.get("timestamp")), message, body)


def is_ignored(kind: str) -> bool:
    """Return whether messages of a type are answered but not stored."""
    return kind in _IGNORED_TYPES or kind.startswith(_IGNORED_PREFIXES)


def queue_of(kind: str) -> Queue | None:
    """Return the queue for messages of a type; None if Holdfast does not use it."""
    return Queue.SAFETY if kind in (STATUS_UPDATE, END_OF_CALL_REPORT) else None


def stored_body(message: VapiMessage) -> bytes:
    """Return the bytes to store of a message: all of them, or a large one's facts.

    Parsing the stored bytes gives the same facts. Replay: the same bytes give the same result.
    """
    if len(message.body) <= lean.LEAN_FROM_BYTES:
        return message.body
    return lean.write({"message": message.content})


def external_id_of(message: VapiMessage) -> str:
    """Name the fact that a message reports, because messages have no ID of their own.

    The name contains the call, the type, the status if there is one, and the reason of an end. It
    has at most 200 characters. A report's name also contains its body's digest, because a second
    report that differs may complete or contradict the first. A message without a call, or of
    another type, is named by its body alone.
    """
    content = message.content
    call_id = call_id_of(content.get("call"))
    status = text_of(content.get("status"), _PART_LENGTH_MAX)
    if call_id is None or message.type not in (STATUS_UPDATE, END_OF_CALL_REPORT):
        return _name_from(message.body)
    parts = [call_id, message.type]
    if message.type == STATUS_UPDATE:
        if status is None:
            return _name_from(message.body)
        parts.append(status)
    # The reason is used only if the call has ended. With any other status it is ignored.
    reason = text_of(content.get("endedReason"), _PART_LENGTH_MAX)
    if reason is not None and (message.type == END_OF_CALL_REPORT or status == _ENDED):
        parts.append(reason)
    if message.type == END_OF_CALL_REPORT:
        parts.append(sha256(message.body).hexdigest()[:_DIGEST_LENGTH])
    name = ":".join(parts)
    if len(name) <= _EXTERNAL_ID_LENGTH_MAX:
        return name
    return f"{call_id}:{message.type}:{sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]}"


def report_of(message: VapiMessage) -> Report:
    """Read what a message reports about a call; OtherReport for other types.

    Raises: MalformedWebhook for a status update or a report that names no call.
    """
    if message.type not in (STATUS_UPDATE, END_OF_CALL_REPORT):
        return OtherReport(message.type)
    content = message.content
    if call_id_of(content.get("call")) is None:
        raise MalformedWebhook("it names no call")
    facts = call_facts(content["call"], content)
    return CallReport(
        facts,
        final=message.type == END_OF_CALL_REPORT,
        talking_ms=_talking_ms(message.sent_ms, facts.started_at),
    )


def call_ask_of(message: VapiMessage) -> AdmissionRequest:
    """Read an assistant-request.

    Raises: MalformedWebhook if it names no call.
    """
    content = message.content
    call = object_in(content.get("call"))
    call_id = call_id_of(call)
    if call_id is None:
        raise MalformedWebhook("it names no call")
    number = object_in(content.get("phoneNumber")) or object_in(call.get("phoneNumber"))
    customer = object_in(content.get("customer")) or object_in(call.get("customer"))
    return AdmissionRequest(
        external_id=call_id,
        direction=direction_of(call) or CallDirection.INBOUND,
        assistant_id=text_of(call.get("assistantId"), ID_LENGTH_MAX),
        phone_number_id=text_of(call.get("phoneNumberId") or number.get("id"), ID_LENGTH_MAX),
        our_number=number_of(number),
        their_party=last_digits(customer.get("number")),
        twilio_call_sid=leg_of(call),
        twilio_account_sid=account_of(number),
        their_number=number_of(customer),
    )


def predial_of(message: VapiMessage) -> PermissionRequest:
    """Read a campaign's request for permission to dial a contact.

    Raises: MalformedWebhook if it names no campaign.
    """
    content = message.content
    contact = object_in(content.get("contact"))
    campaign = object_in(content.get("campaign"))
    campaign_id = text_of(content.get("campaignId") or campaign.get("id"), ID_LENGTH_MAX)
    if campaign_id is None:
        raise MalformedWebhook("it names no campaign")
    assistant = content.get("assistantId") or campaign.get("assistantId")
    number = content.get("phoneNumberId") or campaign.get("phoneNumberId")
    return PermissionRequest(
        campaign_id=campaign_id,
        contact_id=text_of(contact.get("id"), ID_LENGTH_MAX) or "",
        assistant_id=text_of(assistant, ID_LENGTH_MAX),
        phone_number_id=text_of(number, ID_LENGTH_MAX),
        their_number=number_of(contact),
    )


def answer_admitted(
    assistant_id: str, max_duration_seconds: int, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """Answer an assistant-request with the assistant, the time limit, and our IDs.

    The IDs go into the assistant's metadata, because a call itself has no metadata.
    """
    return {
        "assistantId": assistant_id,
        "assistantOverrides": {
            "maxDurationSeconds": max_duration_seconds,
            "metadata": dict(metadata),
        },
    }


def answer_refused(text: str) -> dict[str, Any]:
    """Answer an assistant-request with a text that Vapi speaks before it hangs up."""
    return {"error": text}


def answer_predial(eligible: bool) -> dict[str, Any]:
    """Answer whether a campaign may dial. Any value except true prevents the call."""
    return {"eligible": eligible}


def answer_other(kind: str) -> dict[str, Any]:
    """Build a valid answer without effect, for a question that another server decides."""
    return dict(_EMPTY_ANSWERS.get(kind, {}))


def _name_from(body: bytes) -> str:
    return f"body:{sha256(body).hexdigest()}"


def _talking_ms(sent_ms: int | None, started_at: datetime | None) -> int | None:
    if sent_ms is None or started_at is None:
        return None
    talking_ms = sent_ms - (started_at - _EPOCH) // timedelta(milliseconds=1)
    # If the sending time implies a longer call than the longest possible one, it is ignored.
    # Otherwise the call would be charged for all of that time at once.
    return max(0, talking_ms) if talking_ms <= CALL_DURATION_MS_MAX else None


def _milliseconds_of(value: object) -> int | None:
    # The schema names no unit. Real messages have milliseconds since 1970; seconds are accepted.
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if not 0 < value <= _MILLISECONDS_MAX:
        return None
    return int(value if value >= MILLISECONDS_FROM else value * 1000)
