"""Alerts about calls with unknown or contradictory provider reports."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.facts import CallFacts
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert


def alert_unknown_status(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    """Raise an alert for a call whose reported status is unknown or missing.

    The hold is neither extended nor released because of such a status. Replay: an active alert is
    left unchanged.
    """
    raise_alert(
        session,
        AlertKind.CALL_STATUS_UNKNOWN,
        call.organization_id,
        call.id,
        severity=Severity.WARNING,
        details={
            "status": facts.unknown_status or "none given",
            "provider_call": call.provider_call_id,
        },
        now=now,
    )


def alert_waived(session: Session, call: Call, waived_micros: int, now: datetime) -> None:
    """Raise an alert: a fault of Vapi made a call free, wholly or in part."""
    raise_alert(
        session,
        AlertKind.CALL_WAIVED,
        call.organization_id,
        call.id,
        severity=Severity.WARNING,
        details={
            "reason": call.ended_reason,
            "waived_micros": waived_micros,
            "charged_micros": call.cost_micros,
            "duration_ms": call.duration_ms,
        },
        now=now,
    )


def alert_unsettled(session: Session, call: Call, why: str, now: datetime) -> None:
    """Raise an alert for a call that only an operator can settle.

    Either its cost is unknown, or charging it automatically might be wrong. `why` is the reason.
    """
    raise_alert(
        session,
        AlertKind.CALL_UNSETTLED,
        call.organization_id,
        call.id,
        severity=Severity.CRITICAL,
        details={"why": why, "provider_call": call.provider_call_id},
        now=now,
    )


def clear_unanswered(session: Session, organization_id: str, call_id: str, now: datetime) -> None:
    """Clear the alerts about a call that its provider's answer resolves."""
    for kind in (AlertKind.HOLD_UNANSWERED, AlertKind.CALL_STATUS_UNKNOWN):
        clear_alerts(session, kind, organization_id, call_id, now=now)
