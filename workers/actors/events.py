"""From the inbox to what follows."""

from __future__ import annotations

from base.enums import Provider
from base.facts import OtherReport, Report
from base.log import get_logger
from base.outcomes import Refused
from db import events
from db.events import LockedEvent
from domain.events import take_in
from providers.errors import MalformedWebhook
from providers.paypal.events import parse as parse_paypal
from providers.vapi import messages as vapi
from workers.run import Run

log = get_logger(__name__)


def process_event(run: Run, event_id: str) -> None:
    """This function will act on one inbox event, whole, in the job's own transaction.

    Replay: a handled event is left as it is. Raises: Refused EVENT_NOT_FOUND.
    """
    event = events.lock(run.own, event_id)
    if event is None:
        raise Refused("EVENT_NOT_FOUND", event_id)
    if event.body is None:
        return  # handled so long ago that the body is gone: the database keeps it until then
    try:
        take_in(run.own, event, _parse(event, event.body), run.now)
    except MalformedWebhook as error:
        # Kept and marked: it is genuine, but says nothing that can be acted on.
        log.error("malformed event", event_type=event.event_type, error=str(error))
        event.handled_at, event.outcome = run.now, "malformed"
    events.mark(run.own, event)


def _parse(event: LockedEvent, body: bytes) -> Report:
    if event.source == Provider.PAYPAL:
        return parse_paypal(body)
    if event.source == Provider.VAPI:
        return vapi.report_of(vapi.parse(body))
    return OtherReport(event.event_type)
