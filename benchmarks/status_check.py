"""status_check: p99 of the status check's duration at 200 requests per second.

The baseline is an empty Starlette route with the same requests at the same rate. Many calls are
live, each on its own wallet. Every response must equal what that wallet pays for, to the second.
After each round the wallets must be unchanged, because a status check moves no money.
"""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack, closing
from typing import Any

from benchmarks.measure import Timing, timing
from benchmarks.phones import RATE, open_phone
from benchmarks.sender import pace
from benchmarks.system import System
from benchmarks.webhooks import http_request
from db.engine import clock
from domain.calls import reservations
from domain.calls.settings import Terms
from local.ports import free_ports

_PER_SECOND = 200
_CONNECTIONS = 16
_CALLS = 200
_PATH = "/api/vapi/webhook/status-check"
#: Seconds that each wallet pays for, the part of them that is held, and the seconds talked that the
#: request reports.
_PAID_SECONDS, _HELD_SECONDS, _TALKED_SECONDS = 3_600, 300, 30
_RIGHT = {"endCall": False, "remainingSeconds": _PAID_SECONDS - _TALKED_SECONDS}

_CHANGED = """
    SELECT count(*) FROM calls c JOIN wallets w USING (organization_id)
    WHERE c.provider_call_id = ANY (%s) AND ((w.balance_micros, w.held_micros) <> (%s, %s)
        OR c.settled_at IS NOT NULL OR c.end_decided_at IS NOT NULL)
"""


def status_check(system: System, rounds: int, seconds: float) -> list[Timing]:
    """Measure the route against an empty one."""
    ours_port, empty_port = free_ports(2)
    with ExitStack() as stack:
        stack.enter_context(system.ingress(ours_port))
        stack.enter_context(system.baseline_server("empty_server", empty_port))
        calls = make_calls(system, _CALLS)
        secret = system.sandbox["vapi"]["server_secret"]
        count = round(_PER_SECOND * max(seconds, 1))
        requests = [ask_about(calls[number % len(calls)], secret) for number in range(count)]
        measured: dict[int, list[list[float]]] = {ours_port: [], empty_port: []}
        for _ in range(rounds):
            for port, rounds_of in measured.items():
                # Requests before the measurement do the work that is needed only once, such as
                # connecting.
                pace(port, requests[:_CONNECTIONS], per_second=_PER_SECOND, connections=1)
                paced = pace(port, requests, per_second=_PER_SECOND, connections=_CONNECTIONS)
                rounds_of.append(paced.seconds)
                if port == ours_port:
                    check_answers(system, calls, paced.bodies)
    limit = "goal: p99 at most 4 times the baseline's, and under 15"
    return [timing("status_check", limit, measured[ours_port], measured[empty_port])]


def make_calls(system: System, count: int) -> list[str]:
    """Create calls with a reservation, each on its own wallet, and return their IDs."""
    calls: list[str] = []
    with closing(system.database()) as database:
        for _ in range(count):
            phone = open_phone(system, database, Terms(), seconds=_PAID_SECONDS)
            call_id = str(uuid.uuid4())

            def reserve(session: Any, phone: Any = phone, call_id: str = call_id) -> Any:
                return reservations.reserve_for_call(
                    session,
                    phone.organization_id,
                    call_id=call_id,
                    provider_call_id=call_id,
                    estimated_seconds=_HELD_SECONDS,
                    now=clock(session),
                )

            outcome = database.run(reserve).outcome
            if not outcome.ok:
                raise SystemExit(f"not reserved: {outcome}")
            calls.append(call_id)
    return calls


def check_answers(system: System, calls: list[str], bodies: list[bytes]) -> None:
    """Check the responses, and that the wallets and calls did not change.

    Raises: SystemExit unless every response is right and nothing changed.
    """
    if wrong := [body for body in bodies if json.loads(body) != _RIGHT]:
        raise SystemExit(f"wrong: {len(wrong)} of {len(bodies)} answers, as {wrong[0]!r}")
    paid, held = (RATE.cost_micros(1000 * one) for one in (_PAID_SECONDS, _HELD_SECONDS))
    if changed := system.ask(_CHANGED, calls, paid, held):
        raise SystemExit(f"wrong: asking changed {changed} wallets")


def ask_about(call_id: str, secret: str) -> bytes:
    """Build a status check request with Vapi's authentication."""
    message = {"durationSeconds": _TALKED_SECONDS}
    body = json.dumps({"call": {"id": call_id}, "message": message}).encode()
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    return http_request(_PATH, headers, body)
