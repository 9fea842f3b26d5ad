"""Vapi's server messages: what each is, what names it, what it says, and what it is answered.

Told apart by the message's own type and never by the SDK's models, whose union takes every message
for an assistant-request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from base.enums import CallDirection
from base.facts import (
    CALL_DURATION_MS_MAX,
    CallAsk,
    CallReport,
    OtherReport,
    PredialAsk,
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

#: The two that tell of a call's life.
STATUS_UPDATE = "status-update"
END_OF_CALL_REPORT = "end-of-call-report"
ASSISTANT_REQUEST = "assistant-request"
PREDIAL = "campaign.predial"
_ENDED = "ended"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Proved, counted and answered, and not kept: there are many a second, and nothing follows.
#: "hang" means that the assistant is slow, and not that anybody hung up.
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
#: What is answered to questions that other servers decide: nothing happens, in a valid form.
#: Source: Vapi's SDK 3.0.0, server_message_response_*; `data`, `timeoutSeconds` and `destination`
#: are required there. 0.5 s is the schema's own example of a pause that ends somebody's turn.
_NOTHING: Mapping[str, Mapping[str, Any]] = {
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
#: Types whose answer Vapi uses.
ANSWERED_TYPES = frozenset({ASSISTANT_REQUEST, PREDIAL, *_NOTHING})
_IGNORED_BEGINNINGS = ("transcript[", "assistant.", "chat.", "session.")
#: Longest type that is kept, in characters.
_TYPE_LENGTH_MAX = 100
#: Longest name of a fact, in characters, and how much of a digest stands for a longer one's end.
_EXTERNAL_ID_LENGTH_MAX = 200
_DIGEST_LENGTH = 32
_WORD_LENGTH_MAX = 200
_MILLISECONDS_MAX = 10**14


@dataclass(frozen=True)
class VapiMessage:
    """One server message; numbers with a point in `content` are Decimals."""

    type: str
    #: When Vapi says that it sent it, in milliseconds since 1970; None when that is missing or odd.
    sent_ms: int | None
    content: Mapping[str, Any]
    body: bytes


def parse(body: bytes) -> VapiMessage:
    """Read a server message's envelope from the bytes received; a large one cut down to its facts.

    Raises: MalformedWebhook when it is no JSON object in UTF-8 with a message that has a type, or
    names a key twice at any depth (two readers could then see two messages).
    """
    try:
        is_large = len(body) > lean.LEAN_FROM_BYTES
        envelope = lean.read_message(body) if is_large else read_object(body)
    except ValueError:
        raise MalformedWebhook("the body is no JSON object") from None
    message = envelope.get("message")
    if not isinstance(message, dict):
        raise MalformedWebhook("the body has no message")
    kind = message.get("type")
    if not isinstance(kind, str) or not 0 < len(kind) <= _TYPE_LENGTH_MAX or not kind.isprintable():
        raise MalformedWebhook("the message has no type")
    return VapiMessage(kind, _milliseconds_of(message.get("timestamp")), message, body)


def is_ignored(kind: str) -> bool:
    """This function will tell whether messages of a type are answered and not kept."""
    return kind in _IGNORED_TYPES or kind.startswith(_IGNORED_BEGINNINGS)


def stored_body(message: VapiMessage) -> bytes:
    """Return what is stored of a message: its bytes, or the facts alone of a large one.

    It is read as the whole message is. Replay: the same bytes give the same result.
    """
    if len(message.body) <= lean.LEAN_FROM_BYTES:
        return message.body
    return lean.write({"message": message.content})


def external_id_of(message: VapiMessage) -> str:
    """Name what a message tells of, because messages have no ID of their own.

    The name is the call, the type, the status if there is one, and the reason of an end, in at
    most 200 characters. A report's name has its body's digest too: a second report that differs
    may complete or contradict the first. A message without a call, or of another type, is named by
    its body alone.
    """
    content = message.content
    call_id = call_id_of(content.get("call"))
    status = text_of(content.get("status"), _WORD_LENGTH_MAX)
    if call_id is None or message.type not in (STATUS_UPDATE, END_OF_CALL_REPORT):
        return _named_by(message.body)
    words = [call_id, message.type]
    if message.type == STATUS_UPDATE:
        if status is None:
            return _named_by(message.body)
        words.append(status)
    # No other status has a reason, whatever stands there.
    reason = text_of(content.get("endedReason"), _WORD_LENGTH_MAX)
    if reason is not None and (message.type == END_OF_CALL_REPORT or status == _ENDED):
        words.append(reason)
    if message.type == END_OF_CALL_REPORT:
        words.append(sha256(message.body).hexdigest()[:_DIGEST_LENGTH])
    name = ":".join(words)
    if len(name) <= _EXTERNAL_ID_LENGTH_MAX:
        return name
    return f"{call_id}:{message.type}:{sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]}"


def report_of(message: VapiMessage) -> Report:
    """This function will read what a message says of a call; OtherReport where it is not about one.

    Raises: MalformedWebhook for a report, or a status, that names no call.
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


def call_ask_of(message: VapiMessage) -> CallAsk:
    """This function will read an assistant-request.

    Raises: MalformedWebhook where it names no call.
    """
    content = message.content
    call = object_in(content.get("call"))
    call_id = call_id_of(call)
    if call_id is None:
        raise MalformedWebhook("it names no call")
    number = object_in(content.get("phoneNumber")) or object_in(call.get("phoneNumber"))
    customer = object_in(content.get("customer")) or object_in(call.get("customer"))
    return CallAsk(
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


def predial_of(message: VapiMessage) -> PredialAsk:
    """This function will read a campaign's question whether it may dial.

    Raises: MalformedWebhook where it names no campaign.
    """
    content = message.content
    contact = object_in(content.get("contact"))
    campaign = object_in(content.get("campaign"))
    campaign_id = text_of(content.get("campaignId") or campaign.get("id"), ID_LENGTH_MAX)
    if campaign_id is None:
        raise MalformedWebhook("it names no campaign")
    assistant = content.get("assistantId") or campaign.get("assistantId")
    number = content.get("phoneNumberId") or campaign.get("phoneNumberId")
    return PredialAsk(
        campaign_id=campaign_id,
        contact_id=text_of(contact.get("id"), ID_LENGTH_MAX) or "",
        assistant_id=text_of(assistant, ID_LENGTH_MAX),
        phone_number_id=text_of(number, ID_LENGTH_MAX),
        their_number=number_of(contact),
    )


def answer_admitted(
    assistant_id: str, max_duration_seconds: int, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """This function will answer an assistant-request: who talks, for how long, and our ids.

    The ids go where Vapi has room for some: a call has no metadata of its own.
    """
    return {
        "assistantId": assistant_id,
        "assistantOverrides": {
            "maxDurationSeconds": max_duration_seconds,
            "metadata": dict(metadata),
        },
    }


def answer_refused(text: str) -> dict[str, Any]:
    """This function will answer an assistant-request with what is spoken before it hangs up."""
    return {"error": text}


def answer_predial(eligible: bool) -> dict[str, Any]:
    """This function will answer whether a campaign may dial; all but true keeps it from it."""
    return {"eligible": eligible}


def answer_other(kind: str) -> dict[str, Any]:
    """Answer a question that is decided by another server: nothing, in the form of its type."""
    return dict(_NOTHING.get(kind, {}))


def _named_by(body: bytes) -> str:
    return f"body:{sha256(body).hexdigest()}"


def _talking_ms(sent_ms: int | None, started_at: datetime | None) -> int | None:
    if sent_ms is None or started_at is None:
        return None
    talking_ms = sent_ms - (started_at - _EPOCH) // timedelta(milliseconds=1)
    # A clock that says more than the longest call says nothing: it would bill all of that at once.
    return max(0, talking_ms) if talking_ms <= CALL_DURATION_MS_MAX else None


def _milliseconds_of(value: object) -> int | None:
    # The schema names no unit; what is seen is milliseconds since 1970, and seconds are taken too.
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if not 0 < value <= _MILLISECONDS_MAX:
        return None
    return int(value if value >= MILLISECONDS_FROM else value * 1000)
