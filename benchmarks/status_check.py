"""status_check: how long the status check takes at 200 requests a second, by 99 of 100 of them.

The baseline is an empty route of Starlette at the same rate, sent the same requests. Calls are
many and live, each on a wallet of its own.
"""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack, closing
from typing import Any

from benchmarks.house import House, free_port
from benchmarks.measure import Timing, timing
from benchmarks.phones import open_phone
from benchmarks.sender import pace
from benchmarks.webhooks import http_request
from db.engine import clock
from domain.calls import reserving
from domain.calls.terms import Terms

_PER_SECOND = 200
_CONNECTIONS = 16
_CALLS = 200
_PATH = "/api/vapi/webhook/status-check"


def status_check(house: House, rounds: int, seconds: float) -> list[Timing]:
    """This function will measure the route against an empty one."""
    ours_port, empty_port = free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(house.ingress(ours_port))
        stack.enter_context(
            house.running(
                "empty",
                ["benchmarks.empty_server", str(empty_port)],
                f"http://127.0.0.1:{empty_port}/readyz",
            )
        )
        calls = _make_calls(house)
        secret = house.sandbox["vapi"]["server_secret"]
        count = round(_PER_SECOND * max(seconds, 1))
        requests = [_request(calls[number % len(calls)], secret) for number in range(count)]
        measured: dict[int, list[list[float]]] = {ours_port: [], empty_port: []}
        for _ in range(rounds):
            for port, rounds_of in measured.items():
                # What is only done once, such as making connections, is done before.
                pace(port, requests[:_CONNECTIONS], per_second=_PER_SECOND, connections=1)
                rounds_of.append(
                    pace(port, requests, per_second=_PER_SECOND, connections=_CONNECTIONS)
                )
    limit = "goal: p99 at most 4 times the baseline's, and under 15"
    return [timing("status_check", limit, measured[ours_port], measured[empty_port])]


def _make_calls(house: House) -> list[str]:
    calls: list[str] = []
    with closing(house.database()) as database:
        for _ in range(_CALLS):
            phone = open_phone(house, database, Terms(), seconds=3_600)
            call_id = str(uuid.uuid4())

            def reserve(session: Any, phone: Any = phone, call_id: str = call_id) -> Any:
                return reserving.reserve_for_call(
                    session,
                    phone.organization_id,
                    call_id=call_id,
                    provider_call_id=call_id,
                    estimated_seconds=300,
                    now=clock(session),
                )

            outcome = database.run(reserve).outcome
            if not outcome.ok:
                raise SystemExit(f"not reserved: {outcome}")
            calls.append(call_id)
    return calls


def _request(call_id: str, secret: str) -> bytes:
    body = json.dumps({"call": {"id": call_id}, "message": {"durationSeconds": 30}}).encode()
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    return http_request(_PATH, headers, body)
