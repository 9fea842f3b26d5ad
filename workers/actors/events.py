"""Processes inbox events."""

from __future__ import annotations

from base.enums import Provider
from base.facts import OtherReport, Report
from base.log import get_logger
from base.outcomes import Refused
from base.problems.operators import EVENT_NOT_FOUND
from db.inbox import events
from domain.events import alert_unreadable, apply_inbox_event
from providers.errors import MalformedWebhook
from providers.paypal.events import parse as parse_paypal
from providers.vapi import events as vapi
from workers.attempt import Run

log = get_logger(__name__)


def process_event(run: Run, event_id: str) -> None:
    """Process one inbox event completely, in the job's own transaction.

    An event that cannot be parsed raises an alert. Replay: a processed event is left unchanged.
    Raises: Refused EVENT_NOT_FOUND.
    """
    event = events.take_event(run.job_session, event_id, run.now)
    if event is None:
        raise Refused(EVENT_NOT_FOUND, event_id)
    if event.handled_at is not None or event.body is None:
        return  # a body is deleted only long after its event was handled
    try:
        apply_inbox_event(
            run.job_session, event, report_of(event.source, event.event_type, event.body), run.now
        )
    except MalformedWebhook as error:
        log.error("event_unreadable", event_type=event.event_type, error=str(error))
        alert_unreadable(run.job_session, event, str(error), run.now)
    events.record_outcome(run.job_session, event)


def report_of(source: str, event_type: str, body: bytes) -> Report:
    """Read what a stored event reports.

    Raises: MalformedWebhook if the event cannot be parsed.
    """
    if source == Provider.PAYPAL:
        return parse_paypal(body)
    if source == Provider.VAPI:
        return vapi.report_of(vapi.parse(body))
    return OtherReport(event_type)
