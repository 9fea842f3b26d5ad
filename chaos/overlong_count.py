"""The count of calls past their maximum duration: ended in time, with an alert."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.facts import Facts, Problem
from chaos.load import OVERLOADED
from domain.calls.metering import OVERDUE_SECONDS

#: Seconds that the orders to end a call take: first to Vapi, then to Twilio.
_ORDERS_SECONDS = 10.0
#: Seconds by which faults may delay the end: a worker frozen past its lease, and restarts.
_FAULTS_SECONDS = 90.0
#: Seconds by which the product's meter and the sandbox's clock may differ.
_DIFFERENCE_SECONDS = 2.0


def overlong(facts: Facts) -> Iterator[Problem]:
    """Compare the calls' durations at the sandbox with their maximum durations."""
    calls = dict(facts.rows("SELECT provider_call_id, id FROM calls"))
    alerts = set(
        facts.rows("SELECT organization_id, subject FROM alerts WHERE kind = 'call_past_maximum'")
    )
    for organization_id, provider_call_id in facts.recorded.of("overlong"):
        call = facts.calls[provider_call_id]
        due_seconds = call["longest_seconds"] + OVERDUE_SECONDS
        description = (
            f"overlong {provider_call_id} of {organization_id}: talked {call['seconds']:.1f} s"
        )
        is_late = call["seconds"] > due_seconds + _ORDERS_SECONDS + _FAULTS_SECONDS
        if is_late and facts.load_of_each_core <= OVERLOADED:
            yield Problem(
                "lost",
                f"{description}, and had to end after {due_seconds:g} s",
                (provider_call_id,),
            )
        is_alerted = (organization_id, calls.get(provider_call_id)) in alerts
        if call["seconds"] > due_seconds + _DIFFERENCE_SECONDS and not is_alerted:
            yield Problem("lost", f"{description}, and no alert was raised", (provider_call_id,))
