"""Route each report of a verified event to the operation that applies it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from base.facts import CallReport, DisputeReport, OtherReport, PaymentReport, Report
from db.inbox.events import LockedEvent
from domain import subscriptions
from domain.alerts.alerts import AlertKind, Severity, raise_alert
from domain.calls.status_updates import apply_report
from domain.payments import disputes, payments

#: Longest text of an error in an alert, in characters.
_ERROR_LENGTH_MAX = 500


def apply_inbox_event(session: Session, event: LockedEvent, report: Report, now: datetime) -> str:
    """Apply an inbox event and mark it; return "handled" or "ignored".

    Replay: an event that was handled is not changed.
    """
    if event.handled_at is not None:
        return str(event.outcome)
    if isinstance(report, OtherReport):
        event.outcome = "ignored"
    elif isinstance(report, CallReport):
        is_known = apply_report(session, report, event.received_at, now)
        event.outcome = "handled" if is_known else "ignored"
    else:
        if isinstance(report, PaymentReport):
            payments.stage_reported_refresh(session, report)
        elif isinstance(report, DisputeReport):
            disputes.apply_event(session, report, now)
        else:
            subscriptions.apply_event(session, report, event.received_at, now)
        event.outcome = "handled"
    event.handled_at = now
    return event.outcome


def alert_unreadable(session: Session, event: LockedEvent, error: str, now: datetime) -> None:
    """Mark a verified event that cannot be parsed, and raise its alert.

    The event is genuine, but Holdfast cannot act on it. Its body is kept like any other event's.
    """
    event.handled_at, event.outcome = now, "malformed"
    raise_alert(
        session,
        AlertKind.EVENT_UNREADABLE,
        None,
        event.id,
        severity=Severity.CRITICAL,
        details={
            "source": event.source,
            "event_type": event.event_type,
            "error": error[:_ERROR_LENGTH_MAX].replace("\x00", ""),
            "meaning": "A verified event was not acted on: read its body in the inbox, and act"
            " on the payment, dispute, subscription or call that it names.",
        },
        now=now,
    )


def alert_different_body(
    session: Session, source: str, transmission_id: str, external_id: str, now: datetime
) -> None:
    """Raise an alert: a known event arrived again with a different body.

    A forged body may come with a genuine signature, because PayPal's signature covers only a CRC32
    of the body. The signature covers the whole transmission id. All forgeries that reuse one
    signature therefore raise one alert. Replay: an active alert is not changed.
    """
    raise_alert(
        session,
        AlertKind.EVENT_DIFFERS,
        None,
        transmission_id,
        severity=Severity.CRITICAL,
        details={"source": source, "event": external_id},
        now=now,
    )


def alert_too_large(
    session: Session, source: str, declared: str, bytes_max: int, now: datetime
) -> None:
    """Raise an alert: a verified provider's message was refused for its size.

    The message's report of a call is lost. A job refreshes the call, or our own meter settles it.
    Replay: an active alert is not changed.
    """
    raise_alert(
        session,
        AlertKind.EVENT_TOO_LARGE,
        None,
        source,
        severity=Severity.CRITICAL,
        details={"declared_bytes": declared, "bytes_max": bytes_max},
        now=now,
    )
