"""Alerts: conditions that a person must know about, from raised to cleared.

At most one alert per kind, organization and subject is active: a lasting cause raises one.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from base.operators import Operator
from base.outcomes import Refused
from base.problems.operators import ALERT_NOT_FOUND
from db.models import Alert
from domain.operator_notes import record_action

#: The highest number that an alert can have.
_ALERT_NUMBER_MAX = 2**63 - 1


class AlertKind(StrEnum):
    """The kind of an alert; the subject names the object."""

    #: Available fell below a threshold (the subject, in micros). The ledger raises and clears it.
    LOW_BALANCE = "low_balance"
    #: The provider (the subject) declined an automatic top-up.
    TOP_UP_DECLINED = "top_up_declined"
    #: Automatic top-up through the provider (the subject) has reached its daily cap.
    TOP_UP_CAPPED = "top_up_capped"
    #: A transmission (the subject) or an event id arrived again, but with a different body.
    EVENT_DIFFERS = "event_differs"
    #: A message of an authenticated provider (the subject) was refused because it is too large.
    EVENT_TOO_LARGE = "event_too_large"
    #: A payment or refund (the subject) cannot be settled with the provider's response.
    PAYMENT_UNSETTLED = "payment_unsettled"
    #: A dispute (the subject) cannot be settled with the provider's response.
    DISPUTE_UNSETTLED = "dispute_unsettled"
    #: A call (the subject) continues although its provider was ordered to end it or cannot be
    #: reached. Cleared when the provider reports that the call is over, or when it is settled.
    CALL_NOT_ENDED = "call_not_ended"
    #: A call (the subject) continued past its maximum duration, at which its call platform should
    #: have ended it.
    CALL_PAST_MAXIMUM = "call_past_maximum"
    #: A call (the subject) cost more than could be charged; the rest is outstanding.
    CALL_SHORTFALL = "call_shortfall"
    #: The cost of a call (the subject) cannot be settled without a person; its hold stays.
    CALL_UNSETTLED = "call_unsettled"
    #: A verified message reports a call (the subject) that has no organization, or no rate.
    CALL_UNKNOWN = "call_unknown"
    #: The provider gives no usable response about a call (the subject) that must be refreshed.
    HOLD_UNANSWERED = "hold_unanswered"
    #: A call (the subject) was free in whole or in part, because the call platform's own fault
    #: ended it.
    CALL_WAIVED = "call_waived"
    #: The provider reports an unknown status of a call (the subject); its hold stays.
    CALL_STATUS_UNKNOWN = "call_status_unknown"
    #: A later report or response gives a settled call (the subject) another cost.
    CALL_DIFFERS = "call_differs"
    #: A job (the subject) about money or safety died or was refused. Cleared when the job is
    #: redriven or discarded, or when a provider's job for the same work is done.
    JOB_DEAD = "job_dead"
    #: A verified event (the subject) cannot be parsed; nothing has been done about it.
    EVENT_UNREADABLE = "event_unreadable"
    #: A subscription (the subject) cannot be settled with the provider's response, for example
    #: because the response names no known organization. Cleared when a later response settles it.
    SUBSCRIPTION_UNSETTLED = "subscription_unsettled"
    #: A number or an assistant (the subject) connected a call without requesting its admission.
    ENTRY_POINT_UNASKED = "door_unasked"
    #: Safety jobs are due and no worker has claimed them. The subject is the queue.
    SAFETY_OVERDUE = "safety_overdue"
    #: A queue (the subject) has due jobs and no live worker.
    QUEUE_UNSERVED = "queue_unserved"
    #: The database's clock stepped; the subject is the time that it showed before. Cleared a day
    #: later.
    CLOCK_STEPPED = "clock_stepped"
    #: No relay is live.
    RELAY_SILENT = "relay_silent"
    #: A live process reports that Redis takes no work.
    REDIS_AWAY = "redis_away"
    #: A subaccount (the subject) was changed at Twilio itself; see `repaired` in the details.
    SUBACCOUNT_DRIFTED = "subaccount_drifted"
    #: A subaccount (the subject) cannot be brought into its desired state: it is missing, closed,
    #: or suspended by Twilio.
    SUBACCOUNT_UNUSABLE = "subaccount_unusable"
    #: A call (the subject) was charged twice: under a reservation, and as a call that was not
    #: reserved.
    CALL_CHARGED_TWICE = "call_charged_twice"
    #: A charged reservation (the subject) may be one of several calls. One of these calls waits for
    #: the reservation, and the others were charged. Cleared when the reservation is paired.
    CALL_AMBIGUOUS = "call_ambiguous"
    #: An organization reserved a call (the provider's id is the subject) that belongs to another
    #: organization, according to the call's number or assistant.
    CALL_FOREIGN = "call_foreign"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertNotFound(Refused):
    """No alert has this number."""

    def __init__(self, alert_id: int) -> None:
        super().__init__(ALERT_NOT_FOUND, str(alert_id))


def raise_alert(
    session: Session,
    kind: AlertKind,
    organization_id: str | None,
    subject: str,
    *,
    severity: Severity,
    details: dict[str, Any],
    now: datetime,
) -> bool:
    """Raise an alert; return False if it is already active, which changes nothing.

    Bounds: `subject` is 1 to 200 characters.
    """
    raised = session.execute(
        insert(Alert)
        .values(
            kind=str(kind),
            organization_id=organization_id,
            subject=subject,
            severity=str(severity),
            details=details,
            raised_at=now,
        )
        .on_conflict_do_nothing()
        .returning(Alert.id)
    )
    return raised.scalar_one_or_none() is not None


def clear_alerts(
    session: Session,
    kind: AlertKind,
    organization_id: str | None,
    *subjects: str,
    now: datetime,
) -> int:
    """Clear an organization's alerts of a kind, and return how many were active.

    Without subjects, all alerts of the kind are cleared.
    """
    # None matches None: alerts about the whole system have no organization.
    is_of_organization = Alert.organization_id.is_not_distinct_from(organization_id)
    statement = update(Alert).where(
        Alert.kind == str(kind), is_of_organization, Alert.cleared_at.is_(None)
    )
    if subjects:
        statement = statement.where(Alert.subject.in_(subjects))
    cleared = session.scalars(
        statement.values(cleared_at=now)
        .returning(Alert.id)
        .execution_options(synchronize_session=False)
    )
    return len(cleared.all())


def clear_manually(session: Session, alert_id: int, *, operator: Operator, now: datetime) -> Alert:
    """Clear an alert that a person has dealt with.

    If its cause recurs, the alert is raised again. Replay: a cleared alert is left unchanged.
    Raises: AlertNotFound.
    """
    record_action(session, "alert.clear", str(alert_id), operator=operator, now=now)
    if alert_id > _ALERT_NUMBER_MAX:
        raise AlertNotFound(alert_id)
    alert = session.get(Alert, alert_id, with_for_update=True, populate_existing=True)
    if alert is None:
        raise AlertNotFound(alert_id)
    alert.cleared_at = alert.cleared_at or now
    session.flush()
    return alert
