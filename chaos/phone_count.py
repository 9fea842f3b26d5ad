"""The count of inbound and campaign calls: each ended and was charged once.

The charge is the price of the call's duration at the sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from chaos.customers import CALL_RATE
from chaos.facts import Facts, Problem


def phones(facts: Facts) -> Iterator[Problem]:
    """Compare the sandbox's calls with the calls that the product knows and charged."""
    known = {
        row[0]: row[1:]
        for row in facts.rows(
            # A call that was refused or admitted too late never began, so its end need not be
            # known.
            "SELECT c.provider_call_id, c.status IN ('ended', 'refused')"
            " OR c.settled_by = 'withdrawn',"
            " c.cost_micros, coalesce(e.charged, 0)"
            " FROM calls c CROSS JOIN LATERAL (SELECT sum(amount_micros)::bigint AS charged"
            " FROM wallet_entries e WHERE e.organization_id = c.organization_id"
            " AND e.operation_key = 'call:' || c.id || ':commit' AND e.kind IN ('call', 'owed')) e"
            # Reservations that are not paired, or were merged, are counted as outgoing calls.
            " WHERE c.provider_call_id IS NOT NULL"
        )
    }
    for (organization_id, provider_call_id), _ in facts.recorded.of("phone").items():
        call = facts.calls[provider_call_id]["call"]
        cost = CALL_RATE.cost_micros(talked_ms(call))
        facts.add(organization_id, -cost)
        yield from _compare_call(
            f"phone {provider_call_id} of {organization_id}", call, cost, known
        )
    for provider_call_id in known.keys() - facts.calls.keys():
        yield Problem("doubled", f"phone {provider_call_id}: no call was made", (provider_call_id,))


def _compare_call(
    label: str, call: dict[str, Any], cost: int, known: dict[str, tuple[Any, ...]]
) -> Iterator[Problem]:
    ids = (call["id"],)
    if call["status"] != "ended":
        yield Problem("lost", f"{label}: the call has not ended", ids)
    elif call["id"] not in known:
        # A call that was refused, or rang while no ingress answered, has no conversation.
        if cost:
            yield Problem(
                "lost",
                f"{label}: the conversation costs {cost}, but Holdfast has no such call",
                ids,
            )
    else:
        is_over, settled, charged = known[call["id"]]
        if not is_over or settled is None:
            text = "over" if is_over else "not over"
            yield Problem("lost", f"{label}: {text}, settled for {settled}", ids)
        elif charged != cost:
            text = f"{label}: talked for {cost}, charged {charged}"
            yield Problem("doubled" if charged > cost else "lost", text, ids)


def talked_ms(call: dict[str, Any]) -> int:
    """Return the milliseconds of conversation in Vapi's record of the call."""
    if "startedAt" not in call or "endedAt" not in call:
        return 0
    talked = datetime.fromisoformat(call["endedAt"]) - datetime.fromisoformat(call["startedAt"])
    return max(0, round(talked / timedelta(milliseconds=1)))
