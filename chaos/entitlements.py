"""The final entitlement of each organization, actual against expected.

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
    for one in facts.customers:
        check = partial(_differs, one.organization_id)
        theirs = facts.subscriptions[one.organization_id]
        # A subscription that has ended does not matter if another one is active.
        active, net = "ACTIVE" in theirs.values(), facts.expected.get(one.organization_id, 0)
        found = {reason for whose, reason in frozen if whose == one.organization_id}
        owed = found & {"refund_shortfall", "call_shortfall"}
        for external_id, status in theirs.items():
            found_status = known.pop(external_id, None)
            yield from check(f"subscription {external_id}", status.lower(), found_status)
        twilio = "active" if active else "suspended"
        yield from check("Twilio", twilio, facts.subaccounts[one.subaccount_sid])
        manual = one.organization_id in frozen_manually
        yield from check("freeze placed manually", manual, "manual" in found)
        yield from check("freeze for the end", not active, "subscription_inactive" in found)
        yield from check("freeze for what is owed", net < 0, bool(owed))
        reason = _pause_reason(active, manual or net < 0, net)
        running = ("running", None) if reason is None else ("paused", reason)
        yield from check("campaign", running, campaigns[one.campaign_ids[0]])
        paused = ("paused", "manual_pause")
        yield from check("campaign paused manually", paused, campaigns[one.campaign_ids[1]])
    for external_id, status in known.items():
        text = f"subscription {external_id}: {status}, unknown at the provider"
        yield Problem("doubled", text, (external_id,))


def _pause_reason(active: bool, frozen: bool, net: int) -> str | None:
    if not active:
        return "subscription_inactive"
    if frozen:
        return "wallet_frozen"
    return "wallet_depleted" if net <= 0 else None


def _frozen_manually(recorded: RecordedTraffic) -> set[str]:
    """Return the organizations that an operator's freeze still covers at the end.

    Each freeze is lifted before the next one, if it is lifted at all.
    """
    lifted = recorded.of("lift")
    standing: dict[str, bool] = {}
    for organization_id, key in recorded.of("freeze"):
        standing[organization_id] = (organization_id, key) not in lifted
    return {organization_id for organization_id, stands in standing.items() if stands}


def _differs(organization_id: str, what: str, wanted: object, found: object) -> Iterator[Problem]:
    if wanted != found:
        text = f"{what} of {organization_id}: is {found}, should be {wanted}"
        # A subscription is named by its own ID, everything else by the organization's.
        ids = tuple(what.split()[1:]) if what.startswith("subscription ") else ()
        yield Problem("lost", text, ids or (organization_id,))
