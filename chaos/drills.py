"""Drills: closing events arrive while Valkey or one safety worker fails.

A closing event takes away an organization's entitlement. The fault stays active until every wallet
is frozen or the time limit passes. A freeze that needs the broken part then never happens, and the
drill counts it as lost. No other fault begins meanwhile, but faults that already run continue.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from random import Random

import httpx
from sqlalchemy import text

from base.clock import wait_until
from base.outcomes import NotYet, OutcomeUnknown
from chaos.done import Act, Done
from chaos.facts import Customer, Problem
from chaos.load import OVERLOADED, load_of_each_core
from chaos.processes import is_stopped
from chaos.system import WORKERS, System

#: Seconds from the 2xx response to a closing event until its wallet must be frozen. The goal on a
#: quiet machine is 2 s, which the benchmarks measure. Here the limit is larger: a worker that was
#: just killed is still starting, and PostgreSQL may be stalled for 7 s.
FROZEN_WITHIN_SECONDS = 60.0
#: Seconds in which an ingress must accept the event. If none does, the drill skips that customer.
_ACCEPTED_WITHIN_SECONDS = 20.0
#: Seconds for which an event that restores an entitlement is repeated. They outlast any fault.
_REOPENING_SECONDS = 900.0
#: Seconds from the freeze to the event that restores the entitlement, because PayPal reports times
#: in whole seconds.
_REOPEN_DELAY_SECONDS = 1.5
_SAFETY_WORKERS = tuple(name for name, (queues, _) in WORKERS.items() if "safety" in queues)
_SELECT_FROZEN = text(
    "SELECT organization_id FROM wallet_freezes WHERE lifted_at IS NULL"
    " AND reason = 'subscription_inactive' AND organization_id = ANY (:ids)"
)

#: A context manager that breaks a part of the system while its block runs. It yields a description.
Breakage = Callable[[System, Random], AbstractContextManager[str]]


@dataclass(frozen=True)
class _AcceptedClosing:
    """A closing event that was answered 2xx, and the time of that response."""

    customer: Customer
    event_id: str
    at: float


def send_closings_during(breakage: Breakage, within_seconds: float = FROZEN_WITHIN_SECONDS) -> Act:
    """Make a fault that sends closing events while `breakage` is active.

    Each wallet must be frozen within `within_seconds`. If one is not, the fault reports it as lost,
    unless the machine is overloaded.
    """

    def act(system: System, chance: Random) -> Done:
        customers = _list_unfrozen(system)
        if not customers or not _running_safety_workers(system):
            return Done("no safety worker, or no customer to close", struck=False)
        with breakage(system, chance) as text:
            closings = [
                closing
                for closing in (_send_closing_event(system, customer) for customer in customers)
                if closing
            ]
            late, seconds = _wait_until_frozen(system, closings, text, within_seconds)
        result = f"{', '.join(f'{one:.1f}' for one in seconds) or 'none'} s"
        if late and load_of_each_core() > OVERLOADED:
            result += f"; {len(late)} are late, and not counted: the machine is overloaded"
            late = []
        # Restore every customer, also one whose event no ingress accepted: PayPal's sandbox has
        # already suspended that subscription.
        return Done(
            f"{text}; {len(closings)} closing events, frozen after {result}",
            _REOPEN_DELAY_SECONDS,
            partial(_restore, system, customers),
            struck=bool(closings),
            problems=tuple(late),
            closed_seconds=tuple(seconds),
        )

    return act


def _list_unfrozen(system: System) -> list[Customer]:
    """List the drill customers that are not frozen.

    If the database does not answer, the list is empty.
    """
    frozen = _read_frozen(system, [customer.organization_id for customer in system.drilled])
    if frozen is None:
        return []
    return [customer for customer in system.drilled if customer.organization_id not in frozen]


def _read_frozen(system: System, organization_ids: list[str]) -> set[str] | None:
    try:
        return system.do(
            lambda session, _: set(session.scalars(_SELECT_FROZEN, {"ids": organization_ids}))
        )
    except (NotYet, OutcomeUnknown):
        return None


def _running_safety_workers(system: System) -> list[str]:
    """List the safety workers that run and are not stopped."""
    pids = {
        name: system.supervisor.pid(name)
        for name in _SAFETY_WORKERS
        if name in system.supervisor.names()
    }
    return [name for name, pid in pids.items() if pid is not None and not is_stopped(pid)]


def _send_closing_event(system: System, customer: Customer) -> _AcceptedClosing | None:
    event_id = _make_event(system, "BILLING.SUBSCRIPTION.SUSPENDED", customer)
    accepted = _deliver(system, event_id, _ACCEPTED_WITHIN_SECONDS)
    return _AcceptedClosing(customer, event_id, time.monotonic()) if accepted else None


def _make_event(system: System, event_type: str, customer: Customer) -> str:
    order = {
        "event_type": event_type,
        "resource_id": customer.subscription_id,
        "deliver": False,
    }
    (event,) = system.control("POST", "/paypal/events", order)
    event_id: str = event["event_id"]
    return event_id


def _deliver(system: System, event_id: str, limit_seconds: float) -> bool:
    """Send an event until an ingress answers 2xx or the limit passes."""

    def is_accepted() -> bool:
        order = {"copies": 1, "retry": False}
        with contextlib.suppress(httpx.HTTPError):
            deliveries = system.control("POST", f"/paypal/events/{event_id}/redeliver", order)
            return any(200 <= (delivery["status_code"] or 0) < 300 for delivery in deliveries)
        return False

    return wait_until(is_accepted, limit_seconds=limit_seconds, every_seconds=0.3)


def _wait_until_frozen(
    system: System, closings: list[_AcceptedClosing], text: str, within_seconds: float
) -> tuple[list[Problem], list[float]]:
    """Return the wallets not frozen in time, and the seconds that the others took."""
    seconds: list[float] = []
    waiting = {closing.customer.organization_id: closing for closing in closings}
    end = time.monotonic() + within_seconds
    while waiting and time.monotonic() < end:
        for organization_id in _read_frozen(system, list(waiting)) or ():
            seconds.append(time.monotonic() - waiting.pop(organization_id).at)
        time.sleep(0.05)
    late = [
        Problem(
            "lost",
            f"closing event {closing.event_id} of {organization_id}: not frozen"
            f" within {within_seconds:g} s ({text})",
            (organization_id,),
        )
        for organization_id, closing in waiting.items()
    ]
    return late, seconds


def _restore(system: System, customers: list[Customer]) -> None:
    """Restore the entitlements: repeat each event until an ingress accepts it."""
    events = [
        _make_event(system, "BILLING.SUBSCRIPTION.ACTIVATED", customer) for customer in customers
    ]
    for event_id in events:
        if not _deliver(system, event_id, _REOPENING_SECONDS):
            raise RuntimeError(f"no ingress accepted {event_id} within {_REOPENING_SECONDS:g} s")


# -- ways to break a part -----------------------------------------------------------------------


@contextlib.contextmanager
def valkey_full(system: System, _: Random) -> Iterator[str]:
    """Make Valkey refuse every write because its memory is full."""
    system.valkey.set_memory_limit(1)
    try:
        yield "maxmemory 1, noeviction: every write is answered OOM"
    finally:
        system.valkey.set_memory_limit(0)


@contextlib.contextmanager
def valkey_hung(system: System, _: Random) -> Iterator[str]:
    """Make Valkey keep its connections open and answer nothing."""
    system.valkey.signal(signal.SIGSTOP)
    try:
        yield "SIGSTOP: Valkey says nothing"
    finally:
        system.valkey.signal(signal.SIGCONT)


@contextlib.contextmanager
def safety_worker_stopped(system: System, chance: Random) -> Iterator[str]:
    """Stop one safety worker, together with the jobs it has already fetched."""
    running = _running_safety_workers(system)
    pid = system.supervisor.pid(chance.choice(running)) if len(running) > 1 else None
    name = next((worker for worker in running if system.supervisor.pid(worker) == pid), "")
    if name:
        system.supervisor.kill(name, signal.SIGSTOP)
    try:
        yield f"SIGSTOP: {name or 'the other safety worker was stopped already'}"
    finally:
        if name and system.supervisor.pid(name) == pid:
            system.supervisor.kill(name, signal.SIGCONT)
