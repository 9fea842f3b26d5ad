"""The count of outgoing calls: each is charged once for its duration at Vapi.

A call may be stored under several IDs. The journal shows which belong together: the backend's ID
and the sandbox's ID.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chaos.customers import CALL_RATE
from chaos.facts import Facts, Problem
from chaos.journal import Name
from chaos.phone_count import talked_ms

#: Valid answers to a commit. If Vapi reports that the call goes on, its report charges it.
_BILL_ANSWERS = ("OK", "CALL_IN_PROGRESS")
#: Answers that leave a reservation unpaired. After any other refusal the pairing remains.
_UNPAIRED_ANSWERS = (None, "IDEMPOTENCY_CONFLICT")


@dataclass
class _Known:
    """What the database contains, by organization and the product's ID of a call."""

    #: Vapi's ID, the time of settlement, and the anomalies.
    calls: dict[Name, tuple[Any, ...]]
    charged: Counter[Name]
    held: set[Name]
    #: Calls with an alert that a report differs from the charge.
    differs: set[Name]

    def names(self, name: Name, vapi_id: str | None) -> set[Name]:
        """Return every ID of one call: the backend's, and those with Vapi's ID."""
        found = {one for one, row in self.calls.items() if vapi_id and row[0] == vapi_id}
        return found | {name}


def outgoing(facts: Facts) -> Iterator[Problem]:
    """Compare the outgoing calls at the sandbox with their charges and holds."""
    known = _read(facts)
    dialled = facts.recorded.of("dial")
    for name in facts.recorded.of("book"):
        request = dialled.get(name)
        vapi_id = request.outcome if request is not None else None
        call = facts.calls[vapi_id]["call"] if vapi_id is not None else None
        cost = CALL_RATE.cost_micros(talked_ms(call)) if call is not None else 0
        facts.add(name[0], -cost)
        if call is not None and call["status"] != "ended":
            yield _lost(name, vapi_id, "the call has not ended")
        yield from _differs(known, name, vapi_id, cost)
        yield from _unmarked(facts, known, name, vapi_id)
    for name, request in facts.recorded.of("bill").items():
        if request.outcome not in _BILL_ANSWERS:
            yield _lost(name, None, f"its commit is answered {request.outcome}")
    for name, request in facts.recorded.of("pair").items():
        if request.outcome in _UNPAIRED_ANSWERS:
            yield _lost(name, None, f"its pairing is answered {request.outcome}")


def _read(facts: Facts) -> _Known:
    charged: Counter[Name] = Counter()
    for organization_id, key, micros in facts.rows(
        "SELECT organization_id, operation_key, amount_micros FROM wallet_entries"
        " WHERE operation_key LIKE 'call:%:commit' AND kind IN ('call', 'owed')"
    ):
        call_id = key.removeprefix("call:").removesuffix(":commit")
        charged[organization_id, call_id] += micros
    calls = facts.rows(
        "SELECT organization_id, id, provider_call_id, settled_at, oddities FROM calls"
    )
    held = facts.rows("SELECT organization_id, call_id FROM call_holds WHERE status = 'open'")
    differs = facts.rows("SELECT organization_id, subject FROM alerts WHERE kind = 'call_differs'")
    return _Known(
        {(row[0], row[1]): row[2:] for row in calls},
        charged,
        {(row[0], row[1]) for row in held},
        {(row[0], row[1]) for row in differs},
    )


def _differs(known: _Known, name: Name, vapi_id: str | None, cost: int) -> Iterator[Problem]:
    names = known.names(name, vapi_id)
    rows = [known.calls[one] for one in names if one in known.calls]
    taken = sum(known.charged[one] for one in names)
    if any(settled_at is None for _, settled_at, _ in rows):
        yield _lost(name, vapi_id, "it is not settled")
    elif taken != cost:
        text = f"outgoing {name} ({vapi_id}): talked for {cost}, charged {taken}"
        yield Problem("doubled" if taken > cost else "lost", text, _ids(name, vapi_id))
    if names & known.held:
        yield _lost(name, vapi_id, "its hold is still open")


def _unmarked(facts: Facts, known: _Known, name: Name, vapi_id: str | None) -> Iterator[Problem]:
    """Find reports that contradict an earlier one or the charge and left no mark.

    The mark is an alert or an anomaly on the call.
    """
    names = known.names(name, vapi_id)
    is_alerted = bool(names & known.differs)
    marked = any("talk_denied" in known.calls[one][2] for one in names if one in known.calls)
    for what, is_marked in (("longer", is_alerted), ("denied", is_alerted or marked)):
        request = facts.recorded.of(what).get(name)
        if request is not None and request.outcome == "OK" and not is_marked:
            yield _lost(name, vapi_id, f"a report was {what}, without an alert or an anomaly")


def _lost(name: Name, vapi_id: str | None, why: str) -> Problem:
    return Problem("lost", f"outgoing {name} ({vapi_id}): {why}", _ids(name, vapi_id))


def _ids(name: Name, vapi_id: str | None) -> tuple[str, ...]:
    # Evidence contains all IDs of a problem, but Vapi's messages lack the backend's ID.
    return (vapi_id,) if vapi_id is not None else name
