"""Price a call from its provider's report: its duration and what is waived.

This module only computes. domain/calls/settlement charges the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import FaultPolicy
from base.facts import CALL_DURATION_MS_MAX, CallFacts
from db.models.calls import Call, CallTimeline
from domain.calls.rows import TALKING, rate_of
from domain.calls.settings import terms_of


@dataclass(frozen=True)
class CallCharge:
    """What a call costs, and how much of its full price is waived."""

    cost_micros: int
    waived_micros: int = 0


def charge_for(session: Session, call: Call, facts: CallFacts, duration_ms: int) -> CallCharge:
    """Price a call, less the minutes that are waived if a fault of Vapi ended it.

    The first `fault_waived_minutes` of the organization's terms are waived. The rest is charged as
    a call of that length. Nothing is waived unless the fault policy is WAIVE.
    """
    rate = rate_of(call)
    full_micros = rate.cost_micros(duration_ms)
    terms = terms_of(session, call.organization_id)
    if not facts.platform_fault or terms.fault_policy is not FaultPolicy.WAIVE:
        return CallCharge(full_micros)
    rest_ms = max(0, duration_ms - 60_000 * terms.fault_waived_minutes)
    cost_micros = rate.cost_micros(rest_ms)
    return CallCharge(cost_micros, full_micros - cost_micros)


def reported_talk_ms(call: Call, facts: CallFacts, source: str) -> int | None:
    """Return the talk time that the provider states, in ms; None if it states none.

    A duration above zero counts, whatever the reason for the end is. `source` says where the facts
    come from: "report", or "look" for a refresh.
    """
    if facts.duration_ms:
        return facts.duration_ms
    if facts.never_connected or _was_not_answered(call, facts, source):
        return 0
    return facts.duration_ms


def has_talked(session: Session, call: Call) -> bool:
    """Return whether the provider ever reported the call in progress.

    The order of the messages does not matter. The timeline keeps the report, while the status moves
    on to ended. `metered_from` proves nothing, because the meter may start before the conversation.
    """
    if call.status in TALKING:
        return True
    session.flush()
    talked = select(CallTimeline.id).where(
        CallTimeline.organization_id == call.organization_id,
        CallTimeline.call_id == call.id,
        CallTimeline.what.in_([str(status) for status in TALKING]),
    )
    return bool(session.scalar(select(talked.exists())))


def metered_ms(call: Call) -> int | None:
    """Return the talk time by our own clock, in ms; None if start or end is unknown.

    Bounds: 0 to CALL_DURATION_MS_MAX.
    """
    if call.started_at is None or call.metered_from is None or call.ended_seen_at is None:
        return None
    metered = round((call.ended_seen_at - call.metered_from) / timedelta(milliseconds=1))
    return min(max(0, metered), CALL_DURATION_MS_MAX)


def _was_not_answered(call: Call, facts: CallFacts, source: str) -> bool:
    """Return whether the caller hung up before the call was answered.

    Vapi's call object then has an end, but no start, no cost and no unreadable value. No earlier
    message reported the call in progress. Only a refresh ("look") proves this, because it reads the
    whole object. Source: Vapi's call object.
    """
    has_end_only = facts.ended_at is not None and facts.duration_ms is None
    is_free_and_readable = not facts.provider_cost_micros and not facts.anomalies
    never_started = has_end_only and call.started_at is None
    return source == "look" and never_started and is_free_and_readable
