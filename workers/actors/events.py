"""From the inbox to what follows."""

from __future__ import annotations

from base.enums import Provider
from base.facts import OtherReport, Report
from base.outcomes import Refused
from db.models import InboxEvent
from domain.events import take_in
from providers.errors import MalformedWebhook
from providers.paypal.events import parse as parse_paypal
from workers.run import Run


def process_event(run: Run, event_id: str) -> None:
    """This function will act on one inbox event, whole, in the job's own transaction.

    Raises: Refused EVENT_NOT_FOUND when it was pruned, MALFORMED_EVENT when it says nothing that
    can be acted on.
    """
    event = run.own.get(InboxEvent, event_id, with_for_update={"key_share": True})
    if event is None:
        raise Refused("EVENT_NOT_FOUND", event_id)
    take_in(run.own, event, _parse(event), run.now)


def _parse(event: InboxEvent) -> Report:
    if event.source == Provider.PAYPAL:
        try:
            return parse_paypal(event.body)
        except MalformedWebhook as error:
            raise Refused("MALFORMED_EVENT", str(error)) from None
    return OtherReport(event.event_type)
