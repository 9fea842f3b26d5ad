"""API endpoints that read one call by any of its ids, and call costs by day."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from base.money import text_from_micros
from base.problems.requests import MALFORMED_REQUEST
from db.models.calls import Call
from domain.calls import queries as call_queries
from domain.calls.billing import billing_state, shown_status, withheld_for
from domain.calls.rows import CallNotFound, end_code, parties
from ingress.api.endpoint import AuthorizedRequest
from ingress.api.fields import Fields
from ingress.http.responses import HttpRefusal

#: Days that a cost report covers if the request names no first day.
_REPORT_DAYS_DEFAULT = 30


def read_call(session: Session, request: AuthorizedRequest, now: datetime) -> dict[str, Any]:
    """Show a call, found by our id, Vapi's id, Twilio's id or its appointment.

    Raises: CallNotFound.
    """
    request.fields.nothing_else()
    call_id = Fields(dict(request.path)).text("id")
    call = call_queries.find_call(session, call_id, request.bearer.organization_id)
    if call is None:
        raise CallNotFound(call_id)
    details = call_queries.read_call_details(session, call)
    return {
        **_call_fields(call),
        "mergedCallIds": details.merged,
        "timeline": [
            {"at": event.at.isoformat(), "what": event.what, "detail": event.detail}
            for event in details.timeline
        ],
    }


def read_costs(session: Session, request: AuthorizedRequest, now: datetime) -> dict[str, Any]:
    """Show what an organization's calls cost, day by day in UTC.

    Raises: HttpRefusal 400 for a period that is reversed or longer than DAYS_MAX.
    """
    last = request.fields.day("to") or now.date()
    first = request.fields.day("from") or last - timedelta(days=_REPORT_DAYS_DEFAULT - 1)
    request.fields.nothing_else()
    if not 0 <= (last - first).days < call_queries.DAYS_MAX:
        raise HttpRefusal(
            MALFORMED_REQUEST, f"from must not be after to, at most {call_queries.DAYS_MAX} days."
        )
    days = call_queries.costs_by_day(
        session, organization_id=request.bearer.organization_id, first_day=first, last_day=last
    )
    return {
        "days": [
            {
                "day": day.day.isoformat(),
                "calls": day.calls,
                "seconds": day.seconds,
                "currency": day.currency,
                "cost": text_from_micros(day.cost_micros, day.currency),
                "costMicros": day.cost_micros,
            }
            for day in days
        ]
    }


def _call_fields(call: Call) -> dict[str, Any]:
    from_party, to_party = parties(call)
    return {
        "callId": call.id,
        "vapiCallId": call.provider_call_id,
        "twilioCallSid": call.twilio_call_sid,
        "appointmentId": call.appointment_id,
        "direction": call.direction,
        "status": shown_status(call),
        "billingState": billing_state(call),
        "refusal": call.refusal,
        "from": from_party,
        "to": to_party,
        "startedAt": _isoformat(call.started_at),
        "endedAt": _isoformat(call.ended_at or call.ended_seen_at),
        "endedReason": call.ended_reason,
        "endCause": end_code(call),
        "durationMs": call.duration_ms,
        "currency": call.currency,
        "cost": None
        if call.cost_micros is None
        else text_from_micros(call.cost_micros, call.currency),
        "costMicros": call.cost_micros,
        "settledBy": call.settled_by,
        "withheldFor": withheld_for(call),
        "oddities": call.oddities,
    }


def _isoformat(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
