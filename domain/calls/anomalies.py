"""Alerts about calls whose provider says something unknown or contradictory."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.facts import CallFacts
from db.models.calls import Call
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert


def tell_unknown_status(session: Session, call: Call, facts: CallFacts, now: datetime) -> None:
    """Alert a person that the provider gives a call a status that we do not know, or none.

    Nothing is concluded from it: the hold is neither extended nor released. Replay: an alert that
    stands is left as it is.
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


def tell_waived(session: Session, call: Call, waived_micros: int, now: datetime) -> None:
    """Alert a person that a call was free, in whole or in part, for the platform's own fault."""
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


def tell_unsettled(session: Session, call: Call, why: str, now: datetime) -> None:
    """Alert a person that nobody and nothing else can tell what a call cost, or may charge it."""
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
    """Clear the alerts that the provider's answer about a call settles."""
    for kind in (AlertKind.HOLD_UNANSWERED, AlertKind.CALL_STATUS_UNKNOWN):
        clear_alerts(session, kind, organization_id, call_id, now=now)
