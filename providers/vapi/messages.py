"""Vapi's server messages: what each is, what names it, what it says, and what it is answered.

Told apart by the message's own type and never by the SDK's models, whose union takes every message
for an assistant-request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

from base.enums import CallDirection
from base.facts import CallAsk, CallReport, OtherReport, PredialAsk, Report
from providers.errors import MalformedWebhook
from providers.vapi.readings import (
    ID_LENGTH_MAX,
    account_of,
    call_facts,
    call_id_of,
    direction_of,
    last_digits,
    leg_of,
    text_of,
)

#: The two that tell of a call's life.
STATUS_UPDATE = "status-update"
END_OF_CALL_REPORT = "end-of-call-report"
ASSISTANT_REQUEST = "assistant-request"
PREDIAL = "campaign.predial"
#: Those whose answer is used; the others of them ask for what is not ours to give.
ANSWERED_TYPES = frozenset(
    {
        ASSISTANT_REQUEST,
        PREDIAL,
        "tool-calls",
        "function-call",
        "transfer-destination-request",
        "handoff-destination-request",
        "knowledge-base-request",
        "voice-request",
        "call.endpointing.request",
    }
)
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
        "voice-input",
        "phone-call-control",
    }
)
_IGNORED_BEGINNINGS = ("transcript[", "assistant.", "chat.", "session.")
#: Longest type that is kept, in characters.
_TYPE_LENGTH_MAX = 100
_E164 = re.compile(r"\+[0-9]{4,15}", re.ASCII)
_MILLISECONDS_MAX = 10**14


@dataclass(frozen=True)
class VapiMessage:
    """One server message; numbers with a point in `content` are Decimals."""

    type: str
    content: Mapping[str, Any]
    body: bytes


def parse(body: bytes) -> VapiMessage:
    """This function will read a server message's envelope.

    Raises: MalformedWebhook when it is none.
    """
    try:
        envelope = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError):
        raise MalformedWebhook("the body is not JSON") from None
    message = envelope.get("message") if isinstance(envelope, dict) else None
    if not isinstance(message, dict):
        raise MalformedWebhook("the body has no message")
    kind = message.get("type")
    if not isinstance(kind, str) or not 0 < len(kind) <= _TYPE_LENGTH_MAX or not kind.isprintable():
        raise MalformedWebhook("the message has no type")
    return VapiMessage(kind, message, body)


def is_ignored(kind: str) -> bool:
    """This function will tell whether messages of a type are answered and not kept."""
    return kind in _IGNORED_TYPES or kind.startswith(_IGNORED_BEGINNINGS)


def external_id_of(message: VapiMessage) -> str:
    """This function will name the fact that a message tells of, since messages have no id.

    The call, the type, and the status or the reason of its end; where there is no call, the body
    itself.
    """
    call_id = call_id_of(message.content.get("call"))
    if call_id is not None and message.type == END_OF_CALL_REPORT:
        return f"{call_id}:{message.type}"
    status = text_of(message.content.get("status"), 40)
    if call_id is not None and message.type == STATUS_UPDATE and status:
        return f"{call_id}:{message.type}:{status}"
    return f"body:{sha256(message.body).hexdigest()}"


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
    talking_ms = None
    sent_ms = _milliseconds_of(content.get("timestamp"))
    if sent_ms is not None and facts.started_at is not None:
        talking_ms = max(0, sent_ms - round(facts.started_at.timestamp() * 1000))
    return CallReport(facts, final=message.type == END_OF_CALL_REPORT, talking_ms=talking_ms)


def call_ask_of(message: VapiMessage) -> CallAsk:
    """This function will read an assistant-request.

    Raises: MalformedWebhook where it names no call.
    """
    content = message.content
    call = _object(content.get("call"))
    call_id = call_id_of(call)
    if call_id is None:
        raise MalformedWebhook("it names no call")
    number = _object(content.get("phoneNumber")) or _object(call.get("phoneNumber"))
    customer = _object(content.get("customer")) or _object(call.get("customer"))
    ours = number.get("number")
    return CallAsk(
        external_id=call_id,
        direction=direction_of(call) or CallDirection.INBOUND,
        assistant_id=text_of(call.get("assistantId"), ID_LENGTH_MAX),
        phone_number_id=text_of(call.get("phoneNumberId") or number.get("id"), ID_LENGTH_MAX),
        our_number=ours if isinstance(ours, str) and _E164.fullmatch(ours) else None,
        their_party=last_digits(customer.get("number")),
        twilio_call_sid=leg_of(call),
        twilio_account_sid=account_of(number),
    )


def predial_of(message: VapiMessage) -> PredialAsk:
    """This function will read a campaign's question whether it may dial.

    Raises: MalformedWebhook where it names no campaign.
    """
    content = message.content
    contact = _object(content.get("contact"))
    campaign = _object(content.get("campaign"))
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


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _milliseconds_of(value: object) -> int | None:
    # The schema names no unit; what is seen is milliseconds since 1970.
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    return int(value) if 0 <= value <= _MILLISECONDS_MAX else None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")
