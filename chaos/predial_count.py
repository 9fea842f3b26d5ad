"""The count of a campaign: its balance pays for all contacts permitted at once.

A permitted contact uses part of the balance from the answer that permits it until its call has
ended. If it was never dialled, or its call was not matched with the permission, it uses that part
until the permission can first expire. A step forward of the database's clock makes permissions
expire early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from chaos.customers import CALL_RATE, CALL_TERMS
from chaos.facts import Facts, Problem
from chaos.ingress import LIMITS
from chaos.phone_count import talked_ms
from domain.calls.metering import seconds_to_end_in_time

#: The smallest hold for a contact: it pays for the shortest call that may begin.
HOLD_MICROS = CALL_RATE.cost_micros(1000 * seconds_to_end_in_time(CALL_TERMS))


@dataclass(frozen=True)
class _Permitted:
    """One permitted contact: when its hold must be open, and its charge."""

    contact_id: str
    since: float
    until: float
    charged_micros: int


def predial(facts: Facts) -> Iterator[Problem]:
    """Compare, at each permission, all permitted contacts with the balance."""
    by_organization: dict[str, list[_Permitted]] = {}
    for organization_id, contact in _list_permitted(facts):
        by_organization.setdefault(organization_id, []).append(contact)
    for organization_id, contacts in by_organization.items():
        paid = sum(
            int(Decimal(capture["amount"]["value"]) * 1_000_000)
            for capture in facts.captures
            if capture["custom_id"] == organization_id
        )
        for newest in contacts:
            held = sum(contact.since <= newest.since < contact.until for contact in contacts)
            charged = sum(
                contact.charged_micros for contact in contacts if contact.until <= newest.since
            )
            if held * HOLD_MICROS + charged > paid:
                text = (
                    f"campaign of {organization_id}: {held} contacts were permitted when"
                    f" {newest.contact_id} was, and {paid - charged} micros were left for them"
                )
                yield Problem("doubled", text, (newest.contact_id,))


def _list_permitted(facts: Facts) -> Iterator[tuple[str, _Permitted]]:
    paired_ids = {
        provider_call_id
        for (provider_call_id,) in facts.rows(
            "SELECT provider_call_id FROM calls"
            " WHERE contact_id IS NOT NULL AND provider_call_id IS NOT NULL"
        )
    }
    dialled = facts.recorded.of("campaign_dial")
    for name, request in facts.recorded.of("predial").items():
        if request.outcome != "eligible":
            continue
        dial = dialled.get(name)
        call = facts.calls[dial.outcome] if dial is not None and dial.outcome else None
        if call is not None and dial is not None and dial.outcome in paired_ids:
            charged = min(HOLD_MICROS, CALL_RATE.cost_micros(talked_ms(call["call"])))
            until = float("inf") if call["ended"] is None else call["ended"]
        else:
            charged, until = 0, _earliest_expiry(facts, request.asked_at)
            if call is not None and call["ended"] is not None:
                until = min(until, call["ended"])
        yield name[0], _Permitted(name[1], request.answered_at, until, charged)


def _earliest_expiry(facts: Facts, asked_at: float) -> float:
    """Return when a permission requested at `asked_at` can expire first."""
    steps = [at for at in facts.clock_forward_at if at >= asked_at]
    return min([asked_at + LIMITS.permission_seconds, *steps])
