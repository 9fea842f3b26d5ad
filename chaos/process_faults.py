"""Faults of our own processes: they are killed, or stopped for a time."""

from __future__ import annotations

import signal
from random import Random

import psycopg

from base.clock import wait_until
from chaos.done import Act, Done
from chaos.processes import is_stopped
from chaos.system import WORKERS, System
from db.address import driver_url

#: Seconds for which a worker is frozen so that its lease ends: the longest lease has 35 s.
PAST_LEASE_SECONDS = 37.0
#: Seconds within which a worker must send a request, so that the fault can freeze it.
_REQUEST_WITHIN_SECONDS = 6.0


def kill(*names: str, count: int = 1) -> Act:
    """Kill `count` of these processes, drawn at random."""

    def act(system: System, chance: Random) -> Done:
        known = [name for name in names if name in system.supervisor.names()]
        drawn = chance.sample(known, min(count, len(known)))
        chosen = [name for name in drawn if system.supervisor.alive(name)]
        for name in chosen:
            system.supervisor.kill(name, signal.SIGKILL)
        return Done(f"SIGKILL: {', '.join(chosen) or 'none runs'}", struck=bool(chosen))

    return act


def freeze(*names: str, seconds: tuple[float, float]) -> Act:
    """Stop one of these processes for a time that is drawn between these bounds."""

    def act(system: System, chance: Random) -> Done:
        duration_seconds = chance.uniform(*seconds)
        known = [name for name in names if name in system.supervisor.names()]
        name = chance.choice(known) if known else ""
        pid = system.supervisor.pid(name) if known else None
        if pid is None:
            return Done("SIGSTOP: none runs", struck=False)
        if is_stopped(pid):
            # The shorter of two overlapping freezes would wake the process for both.
            return Done(f"SIGSTOP: {name} sleeps already", struck=False)
        system.supervisor.kill(name, signal.SIGSTOP)

        def undo() -> None:
            if system.supervisor.pid(name) == pid:
                system.supervisor.kill(name, signal.SIGCONT)

        return Done(f"SIGSTOP: {name} for {duration_seconds:.1f} s", duration_seconds, undo)

    return act


def freeze_during_request(provider: str, job: str, match: dict[str, str]) -> Act:
    """Freeze a worker during its request, until another worker can take over its job."""

    def act(system: System, _: Random) -> Done:
        order = {"provider": provider, "kind": "hold", "match": match, "times": 1}
        fault_id = system.control("POST", "/faults", order)["id"]
        wait_until(
            lambda: any(
                fault["id"] == fault_id and fault["held"]
                for fault in system.control("GET", "/faults")
            ),
            limit_seconds=_REQUEST_WITHIN_SECONDS,
        )
        pid = _newest_claimant_pid(system, job)
        names = [name for name in WORKERS if pid and system.supervisor.pid(name) == pid]
        for name in names:
            system.supervisor.kill(name, signal.SIGSTOP)
        system.control("POST", f"/faults/{fault_id}/release")
        system.control("DELETE", f"/faults/{fault_id}")

        def undo() -> None:
            for name in names:
                if system.supervisor.pid(name) == pid:
                    system.supervisor.kill(name, signal.SIGCONT)

        if not names:
            return Done("no worker sent a request in time", struck=False)
        return Done(
            f"SIGSTOP: {names[0]} in its {job} for {PAST_LEASE_SECONDS:g} s",
            PAST_LEASE_SECONDS,
            undo,
        )

    return act


def _newest_claimant_pid(system: System, job: str) -> int | None:
    """Return the process that last claimed a job of this name and still has its lease."""
    with psycopg.connect(driver_url(system.owner_url), autocommit=True) as owner:
        row = owner.execute(
            "SELECT split_part(worker, ':', 2)::int FROM jobs WHERE name = %s"
            " AND lease_until > clock_timestamp() ORDER BY lease_until DESC LIMIT 1",
            (job,),
        ).fetchone()
    return row[0] if row else None
