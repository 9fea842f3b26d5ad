"""Maps Vapi's calls to `base.facts`. A missing or invalid value becomes None.

An invalid value is also named in the facts' `anomalies`. Money and durations are read from the text
of the number, never through a float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from base.enums import CallDirection, CallStatus
from base.facts import CALL_DURATION_MS_MAX, CallFacts
from base.masking import last_digits
from providers.instants import instant_of
from providers.vapi.ended_reasons import ReasonClass, class_of, is_platform_fault
from providers.vapi.fields import object_in

#: Characters of the longest ID that is accepted.
ID_LENGTH_MAX = 64
#: Our IDs in the metadata that we give to a call, and that its later messages repeat.
OUR_ORGANIZATION, OUR_CALL = "holdfast_organization", "holdfast_call"
#: The proof that we, or the company's backend, gave these IDs.
OUR_TOKEN = "holdfast_token"  # noqa: S105  # a key's name
_DURATION_SECONDS_MAX = CALL_DURATION_MS_MAX // 1000
#: The highest cost of a call that is accepted, in US dollars.
_COST_MAX = Decimal(1_000)
#: How far two statements of one duration may differ, in milliseconds.
_DIFFERENCE_MS_MAX = 5_000
_REASON_LENGTH_MAX = 200
_STATUS_LENGTH_MAX = 40
_LEG = re.compile(r"CA[0-9a-f]{32}", re.ASCII)
_ACCOUNT = re.compile(r"AC[0-9a-f]{32}", re.ASCII)
_E164 = re.compile(r"\+[0-9]{4,15}", re.ASCII)
_CALL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

_STATUSES = {
    "scheduled": CallStatus.QUEUED,
    "queued": CallStatus.QUEUED,
    "ringing": CallStatus.RINGING,
    "in-progress": CallStatus.IN_PROGRESS,
    "forwarding": CallStatus.FORWARDING,
    "ended": CallStatus.ENDED,
}
_DIRECTIONS = {
    "inboundPhoneCall": CallDirection.INBOUND,
    "outboundPhoneCall": CallDirection.OUTBOUND,
    "webCall": CallDirection.WEB,
    "vapi.websocketCall": CallDirection.WEB,
}


def call_facts(call: Mapping[str, Any], message: Mapping[str, Any] | None = None) -> CallFacts:
    """Read a call, and what the message about it reports in addition.

    The message's own values take precedence over its copy of the call, which may be older. The
    duration is the time from start to end. If that is missing, invalid or zero, the stated number
    of seconds is the duration. It is 0 for a call that was never connected, and None for a live
    call.
    Units: half a micro of the cost is rounded up, and so is half a millisecond.
    Source: Vapi's call object, and real reports.
    """
    message = message or {}
    anomalies: list[str] = []
    status, unknown_status = _status_of(_member("status", message, call), anomalies)
    if message.get("type") == "end-of-call-report":
        status, unknown_status = CallStatus.ENDED, None
    elif status is None and _has_end(message, call):
        # The status is optional, and its list grows. Only a call that is over has an end.
        status = CallStatus.ENDED
    is_over = status is CallStatus.ENDED
    if is_over and _STATUSES.get(str(call.get("status")), status) is not status:
        anomalies.append("stale_status")
    started_at = _instant("startedAt", message, call, anomalies)
    ended_at = _instant("endedAt", message, call, anomalies)
    reason = _reason(message, call, anomalies) if is_over else None
    duration_ms = _duration_ms(
        started_at, ended_at, _member("durationSeconds", message, call), anomalies
    )
    never_connected = (
        reason is not None
        and class_of(reason) is ReasonClass.NEVER_CONNECTED
        and _member("startedAt", message, call) is None
    )
    if never_connected and duration_ms:
        # The report contradicts itself: no one was reached, but a duration is stated.
        anomalies.append("talked_unanswered")
        never_connected = False
    metadata = _metadata(call)
    number = object_in(message.get("phoneNumber")) or object_in(call.get("phoneNumber"))
    customer = object_in(message.get("customer")) or object_in(call.get("customer"))
    return CallFacts(
        external_id=call_id_of(call) or "",
        status=status,
        direction=direction_of(call),
        assistant_id=text_of(call.get("assistantId"), ID_LENGTH_MAX),
        phone_number_id=text_of(call.get("phoneNumberId") or number.get("id"), ID_LENGTH_MAX),
        twilio_call_sid=leg_of(call),
        twilio_account_sid=account_of(number),
        our_party=last_digits(number.get("number")),
        their_party=last_digits(customer.get("number")),
        our_number=number_of(number),
        their_number=number_of(customer),
        campaign_id=text_of(call.get("campaignId"), ID_LENGTH_MAX),
        organization_id=text_of(metadata.get(OUR_ORGANIZATION), ID_LENGTH_MAX),
        call_id=text_of(metadata.get(OUR_CALL), ID_LENGTH_MAX),
        pairing_token=text_of(metadata.get(OUR_TOKEN), ID_LENGTH_MAX),
        started_at=started_at,
        ended_at=ended_at,
        duration_ms=0 if never_connected else duration_ms if is_over else None,
        ended_reason=reason,
        never_connected=never_connected,
        platform_fault=reason is not None and is_platform_fault(reason),
        provider_cost_micros=_cost_micros(message, call, anomalies),
        unknown_status=unknown_status,
        anomalies=tuple(dict.fromkeys(anomalies)),
    )


def call_id_of(call: object) -> str | None:
    """Return Vapi's ID of a call; None if it has none that can be stored."""
    value = call.get("id") if isinstance(call, dict) else None
    return value if isinstance(value, str) and _CALL_ID.fullmatch(value) else None


def direction_of(call: Mapping[str, Any]) -> CallDirection | None:
    """Return the direction of a call, or None."""
    return _DIRECTIONS.get(str(call.get("type")))


def leg_of(call: Mapping[str, Any]) -> str | None:
    """Return the ID of a call's leg at Twilio, or None."""
    value = call.get("phoneCallProviderId")
    return value if isinstance(value, str) and _LEG.fullmatch(value) else None


def account_of(number: Mapping[str, Any]) -> str | None:
    """Return the Twilio account that carries a number's calls, or None."""
    value = number.get("twilioAccountSid")
    return value if isinstance(value, str) and _ACCOUNT.fullmatch(value) else None


def number_of(party: Mapping[str, Any]) -> str | None:
    """Return a party's whole number in E.164 with its plus sign, or None."""
    value = party.get("number")
    return value if isinstance(value, str) and _E164.fullmatch(value) else None


def text_of(value: object, length_max: int) -> str | None:
    """Return a text that is short, printable and not blank, or None."""
    if not isinstance(value, str) or not value.isprintable():
        return None
    text = value.strip()
    return text if 0 < len(text) <= length_max else None


def _member(name: str, message: Mapping[str, Any], call: Mapping[str, Any]) -> Any:
    """Return a member of the message, or of its copy of the call if that is null."""
    value = message.get(name)
    return call.get(name) if value is None else value


def _status_of(value: object, anomalies: list[str]) -> tuple[CallStatus | None, str | None]:
    """Return the status, or None and an unknown value; both None if there is none."""
    if value is None:
        return None, None
    status = _STATUSES.get(value) if isinstance(value, str) else None
    if status is not None:
        return status, None
    anomalies.append("status")
    return None, text_of(value, _STATUS_LENGTH_MAX) or "?"


def _has_end(message: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    return any(_member(name, message, call) is not None for name in ("endedAt", "endedReason"))


def _reason(
    message: Mapping[str, Any], call: Mapping[str, Any], anomalies: list[str]
) -> str | None:
    given = _member("endedReason", message, call)
    reason = text_of(given, _REASON_LENGTH_MAX)
    if given is not None and reason is None:
        anomalies.append("endedReason")
    return reason


def _instant(
    name: str, message: Mapping[str, Any], call: Mapping[str, Any], anomalies: list[str]
) -> datetime | None:
    given = _member(name, message, call)
    instant = instant_of(given)
    if given is not None and instant is None:
        anomalies.append(name)
    return instant


def _duration_ms(
    started_at: datetime | None,
    ended_at: datetime | None,
    seconds: object,
    anomalies: list[str],
) -> int | None:
    stated_ms = _stated_ms(seconds, anomalies)
    if started_at is None or ended_at is None:
        return stated_ms
    # Whole milliseconds, computed with integers; half of one is rounded up.
    elapsed_ms = ((ended_at - started_at) // timedelta(microseconds=1) + 500) // 1_000
    if not 0 <= elapsed_ms <= CALL_DURATION_MS_MAX:
        anomalies.append("negative_duration" if elapsed_ms < 0 else "absurd_duration")
        return stated_ms
    if elapsed_ms == 0 and stated_ms:
        # Equal times contradict the conversation, and the stated seconds have its length.
        anomalies.append("durations_disagree")
        return stated_ms
    if stated_ms is not None and abs(stated_ms - elapsed_ms) > _DIFFERENCE_MS_MAX:
        anomalies.append("durations_disagree")
    return elapsed_ms


def _stated_ms(value: object, anomalies: list[str]) -> int | None:
    number = _number(value)
    if number is None:
        if value is not None:
            anomalies.append("durationSeconds")
        return None
    if number < 0:
        anomalies.append("negative_duration")
        return None
    # Compared before the multiplication, which would fail for an enormous exponent.
    if number > _DURATION_SECONDS_MAX:
        anomalies.append("absurd_duration")
        return None
    return int((number * 1000).to_integral_value(ROUND_HALF_UP))


def _cost_micros(
    message: Mapping[str, Any], call: Mapping[str, Any], anomalies: list[str]
) -> int | None:
    value = _member("cost", message, call)
    number = _number(value)
    if number is None or not 0 <= number <= _COST_MAX:
        # Many messages have no cost. A cost that is null or invalid is an anomaly.
        if value is not None or "cost" in message or "cost" in call:
            anomalies.append("cost")
        return None
    return int((number * 1_000_000).to_integral_value(ROUND_HALF_UP))


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() else None


def _metadata(call: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_in(object_in(call.get("assistantOverrides")).get("metadata"))
