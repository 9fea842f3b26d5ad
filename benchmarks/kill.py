"""kill: time from the end of the credit to the provider report of the call's end.

Calls arrive at the sandbox's Vapi, on wallets with money for a few seconds. The tick ends each
call: Vapi speaks the reason to the caller and hangs up. Meanwhile 100 other webhooks arrive each
second.

The time begins at the stored decision that the credit is gone. It is measured to the stored
provider report, and to the end of the call at the sandbox. The delay of the decision itself is a
separate figure, because the tick is due before the money is used up. After a round, each wallet
must have paid exactly its call's duration, to the micro.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

from benchmarks.measure import Timing, timing, wait
from benchmarks.others import others
from benchmarks.phones import RATE, Phone, open_phone
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner
from domain.calls.metering import seconds_to_end_in_time
from domain.calls.settings import Terms
from local.ports import free_ports

#: Calls of a round, and how many are live at the same time.
_CALLS = 200
_AT_ONCE = 10
#: Seconds of talk that each wallet can pay. A call ends a margin earlier. The value is small
#: because a round has many calls.
_SECONDS = 12
_TERMS = Terms(step_seconds=4, margin_seconds=5, warn_before_seconds=0)
#: Ended reasons of calls that Holdfast ended: after the spoken reason or, if that took too long, by
#: the next tick.
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
    """Seconds from the decision to the provider report, and to the end of the call."""

    reported: float
    ended: float
    #: Seconds from the time at which the tick was due to the decision.
    late: float


def kill(system: System, rounds: int, seconds: float) -> list[Timing]:
    """Measure 200 ended calls in each round. `seconds` has no effect."""
    (port,) = free_ports(1)
    with system.whole(port):
        system.control("POST", "/target", {"url": f"http://127.0.0.1:{port}"})
        measured = [_round(system, port) for _ in range(rounds)]
    reported = [[one.reported for one in killed] for killed in measured]
    ended = [[one.ended for one in killed] for killed in measured]
    late = [[one.late for one in killed] for killed in measured]
    return [
        timing("kill", "goal: p99 under 2,000", reported),
        timing("kill_at_vapi", "to the sandbox's own instant", ended),
        timing("kill_tick", "the decision, from when it was due", late),
    ]


def _round(system: System, port: int) -> list[Killed]:
    system.clear()
    system.ask("TRUNCATE calls, call_timeline")
    signer = PayPalSigner(system.sandbox["paypal"])
    with closing(system.database()) as database:
        phones = [open_phone(system, database, _TERMS, seconds=_SECONDS) for _ in range(_CALLS)]
    with others(system, port, signer):
        for first in range(0, _CALLS, _AT_ONCE):
            _notify(system, phones[first : first + _AT_ONCE])
            due = first + _AT_ONCE
            wait(lambda due=due: system.ask(_ENDED) >= due, "calls that have ended")  # type: ignore[misc]
    check_wallets(system, RATE.cost_micros(1000 * _SECONDS))
    killed = killed_calls(system, talk_seconds=_SECONDS - seconds_to_end_in_time(_TERMS))
    if len(killed) != _CALLS:
        raise SystemExit(f"wrong: {len(killed)} of {_CALLS} ended for their credit")
    return killed


def check_wallets(system: System, funded_micros: int) -> None:
    """Compare each caller's wallet with the cost of its call.

    Raises: SystemExit unless the wallet paid exactly that, holds nothing and has no outstanding
    amount.
    """
    if wrong := system.ask(_WRONG, funded_micros):
        raise SystemExit(f"wrong: {wrong} wallets")


def killed_calls(system: System, *, talk_seconds: int) -> list[Killed]:
    """Time every call that was ended for lack of credit, and check it at the sandbox.

    Each call was due to end after `talk_seconds` of talk.

    Raises: SystemExit unless the sandbox agrees: Holdfast ended the call, Vapi spoke the reason,
    and the wallet was charged to the micro.
    """
    instants = system.ask(_INSTANTS) or {}
    killed = []
    for call_id, (*texts, cost_micros) in instants.items():
        ended_at = _check(system, call_id, cost_micros)
        began_at, decided_at, reported_at = (datetime.fromisoformat(one) for one in texts)
        due_at = began_at + timedelta(seconds=talk_seconds)
        passed = (reported_at - decided_at, ended_at - decided_at, decided_at - due_at)
        killed.append(Killed(*(one.total_seconds() for one in passed)))
    return killed


def _check(system: System, call_id: str, cost_micros: int) -> datetime:
    """Check one call at the sandbox and return when it ended there."""
    seen = system.control("GET", f"/vapi/calls/{call_id}")
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


def _notify(system: System, phones: list[Phone]) -> None:
    for phone in phones:
        system.control(
            "POST",
            "/vapi/calls",
            {
                "direction": "inbound",
                "number_id": phone.number_id,
                "queued_seconds": 0,
                "ring_seconds": 0,
            },
        )
