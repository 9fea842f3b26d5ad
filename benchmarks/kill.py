"""kill: from the credit being gone to the provider's word that the call has ended.

Calls ring in at the sandbox's Vapi on wallets with money for seconds, are ended by the tick, told
why, and cut off there, while 100 other webhooks a second come in. Each one's instants are those of
its row: the decision that its credit is gone, and its provider's word.
"""

from __future__ import annotations

from contextlib import ExitStack, closing

from benchmarks.house import House, free_port
from benchmarks.measure import Timing, timing, wait
from benchmarks.phones import RATE, Phone, open_phone
from benchmarks.suspend import others
from benchmarks.webhooks import PayPalSigner
from domain.calls.terms import Terms

#: Calls of a round, and how many ring at once.
_CALLS = 200
_AT_ONCE = 25
#: Money for so many seconds a call, which is ended a margin before: short, as a round has many.
_SECONDS = 12
_TERMS = Terms(step_seconds=4, margin_seconds=5, warn_before_seconds=0)

_ENDED = "SELECT count(*) FROM calls WHERE ended_seen_at IS NOT NULL AND settled_at IS NOT NULL"
_TOOK = """
    SELECT array_agg(extract(epoch FROM ended_seen_at - end_decided_at)::float8),
        count(*) FILTER (WHERE end_cause IS DISTINCT FROM 'credit_gone')
    FROM calls
"""
_WRONG = """
    SELECT count(*) FROM calls c JOIN wallets w USING (organization_id)
    WHERE w.balance_micros <> %s - c.cost_micros OR w.balance_micros < 0 OR w.held_micros <> 0
        OR w.owed_micros <> 0
"""


def kill(house: House, rounds: int, seconds: float) -> list[Timing]:
    """This function will measure so many endings a round; `seconds` changes nothing of it."""
    del seconds
    port = free_port()
    with ExitStack() as stack:
        for queue, threads in (("safety", 8), ("billing", 4), ("callbacks", 2)):
            stack.enter_context(house.workers(queue, processes=1, threads=threads))
        stack.enter_context(house.relay())
        stack.enter_context(house.ingress(port))
        house.control("POST", "/target", {"url": f"http://127.0.0.1:{port}"})
        measured = [_round(house, port) for _ in range(rounds)]
    return [timing("kill", "goal: p99 under 2,000", measured)]


def _round(house: House, port: int) -> list[float]:
    house.clear()
    house.ask("TRUNCATE calls, call_timeline")
    signer = PayPalSigner(house.sandbox["paypal"])
    with closing(house.database()) as database:
        phones = [open_phone(house, database, _TERMS, seconds=_SECONDS) for _ in range(_CALLS)]
    with others(house, port, signer):
        for first in range(0, _CALLS, _AT_ONCE):
            _ring(house, phones[first : first + _AT_ONCE])
            due = first + _AT_ONCE
            wait(lambda due=due: house.ask(_ENDED) >= due, "calls that have ended")  # type: ignore[misc]
    took, not_for_credit = house.row(_TOOK)
    wrong = house.ask(_WRONG, RATE.cost_micros(1000 * _SECONDS))
    if wrong or not_for_credit or len(took) != _CALLS:
        raise SystemExit(f"wrong: {wrong} wallets, {not_for_credit} other causes, {len(took)}")
    return [float(one) for one in took]


def _ring(house: House, phones: list[Phone]) -> None:
    for phone in phones:
        house.control(
            "POST",
            "/vapi/calls",
            {
                "direction": "inbound",
                "number_id": phone.number_id,
                "queued_seconds": 0,
                "ring_seconds": 0,
            },
        )
