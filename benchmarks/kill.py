"""kill: from the credit being gone to the provider's word that the call has ended.

Calls ring in at the sandbox's Vapi on wallets with money for seconds, are ended by the tick, told
why, and cut off there, while 100 other webhooks a second come in. Counted from the decision that
the credit is gone, as its row has it, to its provider's word there; and to the end itself, as the
sandbox has it. How late the decision was is told apart: the tick is due so long before the money is
used up. After a round each wallet has paid for what its call talked, to the micro.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

from benchmarks.house import House
from benchmarks.measure import Timing, timing, wait
from benchmarks.others import others
from benchmarks.phones import RATE, Phone, open_phone
from benchmarks.webhooks import PayPalSigner
from domain.calls.metering import seconds_to_end_in_time
from domain.calls.settings import Terms
from local.ports import free_ports

#: Calls of a round, and how many ring at once.
_CALLS = 200
_AT_ONCE = 10
#: Money for so many seconds a call, which is ended a margin before: short, as a round has many.
_SECONDS = 12
_TERMS = Terms(step_seconds=4, margin_seconds=5, warn_before_seconds=0)
#: Ended by us: after it was told why, or, where that was too slow, by the round after it.
_BY_US = ("assistant-said-message-with-end-call-enabled", "manually-canceled")

_ENDED = "SELECT count(*) FROM calls WHERE ended_seen_at IS NOT NULL AND settled_at IS NOT NULL"
_INSTANTS = """
    SELECT json_object_agg(provider_call_id,
        json_build_array(metered_from, end_decided_at, ended_seen_at, cost_micros))
    FROM calls WHERE end_cause = 'insufficient_funds'
"""
_WRONG = """
    SELECT count(*) FROM calls c JOIN wallets w USING (organization_id)
    WHERE (w.balance_micros, w.held_micros, w.owed_micros)
            IS DISTINCT FROM (%s - c.cost_micros, 0, 0)
        OR w.balance_micros < 0
"""


@dataclass(frozen=True)
class Killed:
    """How long it took, in seconds: from the decision to the provider's word, and to the end."""

    told: float
    ended: float
    #: From the instant that the tick was due to end it until the decision.
    late: float


def kill(house: House, rounds: int, seconds: float) -> list[Timing]:
    """This function will measure 200 endings a round; the number is given, so `seconds` is not."""
    (port,) = free_ports(1)
    with house.whole(port):
        house.control("POST", "/target", {"url": f"http://127.0.0.1:{port}"})
        measured = [_round(house, port) for _ in range(rounds)]
    told = [[one.told for one in killed] for killed in measured]
    ended = [[one.ended for one in killed] for killed in measured]
    late = [[one.late for one in killed] for killed in measured]
    return [
        timing("kill", "goal: p99 under 2,000", told),
        timing("kill_at_vapi", "to the sandbox's own instant", ended),
        timing("kill_tick", "the decision, from when it was due", late),
    ]


def _round(house: House, port: int) -> list[Killed]:
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
    check_wallets(house, RATE.cost_micros(1000 * _SECONDS))
    killed = killed_calls(house, talk_seconds=_SECONDS - seconds_to_end_in_time(_TERMS))
    if len(killed) != _CALLS:
        raise SystemExit(f"wrong: {len(killed)} of {_CALLS} ended for their credit")
    return killed


def check_wallets(house: House, funded_micros: int) -> None:
    """This function will compare each caller's wallet with what its one call cost.

    Raises: SystemExit unless it paid that and no more, holds nothing and owes nothing.
    """
    if wrong := house.ask(_WRONG, funded_micros):
        raise SystemExit(f"wrong: {wrong} wallets")


def killed_calls(house: House, *, talk_seconds: int) -> list[Killed]:
    """This function will time every call that was ended for its credit, and ask the sandbox.

    Each was to be ended after so many seconds of talk. Raises: SystemExit unless the sandbox says
    the same: ended by us, told why, and charged to the micro.
    """
    instants = house.ask(_INSTANTS) or {}
    killed = []
    for call_id, (*texts, cost_micros) in instants.items():
        ended_at = _check(house, call_id, cost_micros)
        began_at, decided_at, told_at = (datetime.fromisoformat(one) for one in texts)
        due_at = began_at + timedelta(seconds=talk_seconds)
        passed = (told_at - decided_at, ended_at - decided_at, decided_at - due_at)
        killed.append(Killed(*(one.total_seconds() for one in passed)))
    return killed


def _check(house: House, call_id: str, cost_micros: int) -> datetime:
    """Gives the sandbox's own instant of a call's end."""
    seen = house.control("GET", f"/vapi/calls/{call_id}")
    shown = seen["call"]
    started_at, ended_at = (datetime.fromisoformat(shown[one]) for one in ("startedAt", "endedAt"))
    talked_ms = round((ended_at - started_at) / timedelta(milliseconds=1))
    if (
        shown["endedReason"] not in _BY_US
        or [speech["text"] for speech in seen["spoken"]] != [_TERMS.ending_text]
        or cost_micros != RATE.cost_micros(talked_ms)
    ):
        raise SystemExit(f"wrong: {cost_micros} micros for {seen}")
    return ended_at


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
