"""The faults: what each one breaks, for how long, and how it is undone.

A fault returns a description of what it did. If the fault lasts, it also returns the seconds until
`undo` is called. The plan of faults and each fault's choices depend only on the seed.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import psycopg

from chaos.clock_steps import step_clock
from chaos.done import Act, Done
from chaos.drills import safety_worker_stopped, send_closings_during, valkey_full, valkey_hung
from chaos.process_faults import PAST_LEASE_SECONDS, freeze, freeze_during_request, kill
from chaos.system import INGRESSES, RELAYS, WORKERS, System
from db.address import driver_url

#: Seconds from the start to the first fault, and between two faults.
_FIRST_SECONDS = 2.0
_FAULT_GAP_SECONDS = (1.0, 2.6)
#: Kinds of faults that last `PAST_LEASE_SECONDS`.
_LONG_KINDS = ("worker_frozen_past_lease", "worker_frozen_asking", "worker_frozen_changing")


@dataclass(frozen=True)
class PlannedFault:
    """A planned fault: its start, in seconds after the traffic begins, and its seed."""

    at: float
    kind: str
    seed: str


def plan(seed: int, seconds: float) -> list[PlannedFault]:
    """Draw the faults of a run, in shuffled rounds that each contain every kind."""
    chance = Random(f"{seed}:faults")  # noqa: S311
    planned: list[PlannedFault] = []
    kinds = _shuffled_kinds(chance)
    at = _FIRST_SECONDS
    while at < seconds:
        kind = next(kinds)
        # A long fault must begin early enough to end while there is still traffic.
        if kind not in _LONG_KINDS or at + PAST_LEASE_SECONDS < seconds:
            planned.append(PlannedFault(at, kind, f"{seed}:{len(planned)}"))
            at += chance.uniform(*_FAULT_GAP_SECONDS)
    return planned


def _shuffled_kinds(chance: Random) -> Iterator[str]:
    while True:
        kinds = [kind for kind, (_, weight) in KINDS.items() for _ in range(weight)]
        chance.shuffle(kinds)
        yield from kinds


# -- servers --------------------------------------------------------------------------------------


def _restart_postgres(system: System, _: Random) -> Done:
    return Done(f"fast restart, back after {system.postgres.restart():.1f} s")


def _kill_postgres(number: signal.Signals) -> Act:
    return lambda system, _: Done(
        f"{number.name} to the postmaster, recovered after {system.postgres.kill(number):.1f} s"
    )


def _terminate_backends(system: System, chance: Random) -> Done:
    with psycopg.connect(driver_url(system.owner_url), autocommit=True) as owner:
        pids = owner.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = 'holdfast_app'"
            " AND application_name NOT LIKE 'holdfast chaos%' ORDER BY pid"
        ).fetchall()
        chosen = chance.sample(pids, len(pids) // 2)
        for (pid,) in chosen:
            owner.execute("SELECT pg_terminate_backend(%s)", (pid,))
    return Done(f"{len(chosen)} of {len(pids)} sessions terminated")


def _restart_valkey(system: System, _: Random) -> Done:
    return Done(f"restart, back after {system.valkey.restart():.1f} s")


def _kill_valkey(system: System, _: Random) -> Done:
    return Done(f"SIGKILL, back after {system.valkey.kill(signal.SIGKILL):.1f} s")


def _flush_valkey(system: System, _: Random) -> Done:
    system.valkey.flush()
    return Done("FLUSHALL")


# -- connections ----------------------------------------------------------------------------------


def _cut_connections(route: str) -> Act:
    def act(system: System, _: Random) -> Done:
        system.proxy.ask(route=route, do="cut")
        return Done("every connection cut")

    return act


def _set_proxy_mode(route: str, mode: str, description: str, seconds: tuple[float, float]) -> Act:
    def act(system: System, chance: Random) -> Done:
        duration_seconds, delay = chance.uniform(*seconds), chance.uniform(0.005, 0.05)
        system.proxy.ask(route=route, do=mode, seconds=delay)

        def undo() -> None:
            if mode == "deaf":
                # A client that waits for a lost answer learns of the loss when its connection ends.
                system.proxy.ask(route=route, do="cut")
            system.proxy.ask(route=route, do="open")

        text = f"{description} ({delay * 1000:.0f} ms)" if mode == "delay" else description
        return Done(f"{text} for {duration_seconds:.1f} s", duration_seconds, undo)

    return act


# -- providers ------------------------------------------------------------------------------------


def _add_provider_fault(provider: str, kind: str, span: tuple[float, float], **more: Any) -> Act:
    def act(system: System, chance: Random) -> Done:
        duration_seconds = chance.uniform(*span)
        fault = system.control("POST", "/faults", {"provider": provider, "kind": kind, **more})

        def undo() -> None:
            if kind == "hold":
                # The senders have timed out by now. Release their requests to the provider.
                system.control("POST", f"/faults/{fault['id']}/release")
            system.control("DELETE", f"/faults/{fault['id']}")

        status = f" {more['status']}" if "status" in more else ""
        return Done(
            f"{provider}: {kind}{status} for {duration_seconds:.1f} s", duration_seconds, undo
        )

    return act


_CHANGING_REQUESTS = {"method": "POST"}
_RETRY_AFTER = {"Retry-After": "1"}

#: Every kind of fault: its function, and how often it occurs in one round.
KINDS: dict[str, tuple[Act, int]] = {
    "worker_killed": (kill(*WORKERS), 3),
    "workers_killed_all": (kill(*WORKERS, count=len(WORKERS)), 1),
    "relay_killed": (kill(*RELAYS), 2),
    "ingress_killed": (kill(*INGRESSES), 2),
    "worker_frozen": (freeze(*WORKERS, seconds=(3, 12)), 2),
    "worker_frozen_past_lease": (
        freeze("safety-1", "billing-1", seconds=(PAST_LEASE_SECONDS, PAST_LEASE_SECONDS)),
        1,
    ),
    "worker_frozen_asking": (
        freeze_during_request("paypal", "look_at_payment", {"path_contains": "/v2/payments/"}),
        1,
    ),
    "worker_frozen_changing": (
        freeze_during_request("twilio", "converge_twilio", _CHANGING_REQUESTS),
        1,
    ),
    "relay_frozen": (freeze(*RELAYS, seconds=(3, 10)), 1),
    "ingress_frozen": (freeze(*INGRESSES, seconds=(2, 8)), 1),
    "postgres_restarted": (_restart_postgres, 1),
    "postgres_immediate": (_kill_postgres(signal.SIGQUIT), 1),
    "postgres_killed": (_kill_postgres(signal.SIGKILL), 1),
    "postgres_sessions_ended": (_terminate_backends, 2),
    "postgres_cut": (_cut_connections("postgres"), 2),
    "postgres_away": (_set_proxy_mode("postgres", "refuse", "no connection", (0.5, 4)), 1),
    "postgres_stalled": (_set_proxy_mode("postgres", "stall", "not a byte passes", (1, 7)), 1),
    "postgres_slow": (_set_proxy_mode("postgres", "delay", "each packet late", (3, 6)), 1),
    "postgres_answers_lost": (_set_proxy_mode("postgres", "deaf", "answers lost", (0.2, 1)), 2),
    "postgres_clock_stepped": (step_clock((5, 20)), 1),
    "postgres_clock_stepped_an_hour": (step_clock((3_300, 3_900), at_once=True), 1),
    "valkey_restarted": (_restart_valkey, 1),
    "valkey_killed": (_kill_valkey, 1),
    "valkey_emptied": (_flush_valkey, 2),
    "valkey_cut": (_cut_connections("valkey"), 1),
    "valkey_stalled": (_set_proxy_mode("valkey", "stall", "not a byte passes", (1, 6)), 1),
    "valkey_answers_lost": (_set_proxy_mode("valkey", "deaf", "answers lost", (0.2, 1)), 1),
    "valkey_full": (send_closings_during(valkey_full), 1),
    "valkey_hung": (send_closings_during(valkey_hung), 1),
    "safety_worker_stopped": (send_closings_during(safety_worker_stopped), 1),
    "ingress_cut": (_cut_connections("ingress"), 1),
    "ingress_answers_lost": (_set_proxy_mode("ingress", "deaf", "answers lost", (0.3, 1.5)), 2),
    "paypal_500": (_add_provider_fault("paypal", "status", (2, 6), status=500, probability=0.6), 1),
    "paypal_429": (
        _add_provider_fault(
            "paypal", "status", (2, 6), status=429, probability=0.6, headers=_RETRY_AFTER
        ),
        1,
    ),
    "paypal_answers_lost": (
        _add_provider_fault("paypal", "act_then_drop", (2, 6), probability=0.5),
        1,
    ),
    "paypal_slow": (_add_provider_fault("paypal", "delay", (2, 5), seconds=6, probability=0.3), 1),
    "twilio_500": (_add_provider_fault("twilio", "status", (3, 6), status=500, probability=0.6), 1),
    "twilio_429": (
        _add_provider_fault(
            "twilio", "status", (3, 6), status=429, probability=0.6, headers=_RETRY_AFTER
        ),
        1,
    ),
    "twilio_acts_and_says_nothing": (
        _add_provider_fault(
            "twilio", "act_then_timeout", (4, 8), seconds=6, match=_CHANGING_REQUESTS
        ),
        2,
    ),
    "vapi_500": (_add_provider_fault("vapi", "status", (2, 6), status=500, probability=0.6), 1),
    "vapi_429": (
        _add_provider_fault(
            "vapi", "status", (2, 6), status=429, probability=0.6, headers=_RETRY_AFTER
        ),
        1,
    ),
    "vapi_answers_lost": (_add_provider_fault("vapi", "act_then_drop", (2, 6), probability=0.5), 1),
    "twilio_acts_late": (
        _add_provider_fault("twilio", "hold", (6, 9), match=_CHANGING_REQUESTS, times=2),
        2,
    ),
}


def strike(system: System, planned: PlannedFault) -> Done:
    """Carry out one fault of the plan."""
    act, _ = KINDS[planned.kind]
    return act(system, random.Random(planned.seed))  # noqa: S311
