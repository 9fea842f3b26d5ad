"""Compare the final entitlement of each organization with the expected one.

The expected entitlement follows from the providers' data, the operators' actions and the money.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from chaos.facts import Facts, Problem
from chaos.journal import RecordedTraffic


def entitlements(facts: Facts) -> Iterator[Problem]:
    """Compare subscriptions, subaccounts, freezes and campaigns."""
    frozen = {
        (organization_id, reason)
        for organization_id, reason in facts.rows(
            "SELECT organization_id, reason FROM wallet_freezes WHERE lifted_at IS NULL"
        )
    }
    campaigns = {
        row[0]: row[1:] for row in facts.rows("SELECT id, status, pause_reason FROM campaigns")
    }
    known: dict[str, str] = dict(facts.rows("SELECT external_id, status FROM subscriptions"))
    frozen_manually = _frozen_manually(facts.recorded)
    for customer in facts.customers:
        check = partial(_compare, customer.organization_id)
        subscriptions = facts.subscriptions[customer.organization_id]
        # A subscription that has ended does not matter if another one is active.
        active = "ACTIVE" in subscriptions.values()
        net_micros = facts.expected.get(customer.organization_id, 0)
        reasons = {reason for owner_id, reason in frozen if owner_id == customer.organization_id}
        shortfalls = reasons & {"refund_shortfall", "call_shortfall"}
        for external_id, status in subscriptions.items():
            found_status = known.pop(external_id, None)
            yield from check(f"subscription {external_id}", status.lower(), found_status)
        twilio = "active" if active else "suspended"
        yield from check("Twilio", twilio, facts.subaccounts[customer.subaccount_sid])
        manual = customer.organization_id in frozen_manually
        yield from check("freeze placed manually", manual, "manual" in reasons)
        yield from check("freeze for the end", not active, "subscription_inactive" in reasons)
        yield from check("freeze for what is owed", net_micros < 0, bool(shortfalls))
        reason = _pause_reason(active, manual or net_micros < 0, net_micros)
        running = ("running", None) if reason is None else ("paused", reason)
        yield from check("campaign", running, campaigns[customer.campaign_ids[0]])
        paused = ("paused", "manual_pause")
        yield from check("campaign paused manually", paused, campaigns[customer.campaign_ids[1]])
    for external_id, status in known.items():
        text = f"subscription {external_id}: {status}, unknown at the provider"
        yield Problem("doubled", text, (external_id,))


def _pause_reason(active: bool, frozen: bool, net_micros: int) -> str | None:
    if not active:
        return "subscription_inactive"
    if frozen:
        return "wallet_frozen"
    return "wallet_depleted" if net_micros <= 0 else None


def _frozen_manually(recorded: RecordedTraffic) -> set[str]:
    """Return the organizations that an operator's freeze still covers at the end.

    Each freeze is lifted before the next one, if it is lifted at all.
    """
    lifted = recorded.of("lift")
    is_active_by_id: dict[str, bool] = {}
    for organization_id, key in recorded.of("freeze"):
        is_active_by_id[organization_id] = (organization_id, key) not in lifted
    return {organization_id for organization_id, is_active in is_active_by_id.items() if is_active}


def _compare(
    organization_id: str, what: str, expected: object, actual: object
) -> Iterator[Problem]:
    if expected != actual:
        text = f"{what} of {organization_id}: is {actual}, should be {expected}"
        # A subscription is named by its own ID, everything else by the organization's.
        ids = tuple(what.split()[1:]) if what.startswith("subscription ") else ()
        yield Problem("lost", text, ids or (organization_id,))
