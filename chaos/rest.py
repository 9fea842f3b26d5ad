"""A run at rest: no job is due and no call is live; then every process is stopped.

If a process went on during the count, the count would report false losses. A periodic job staged
meanwhile would be "waiting", and a late report of a call would be "kept, not handled".
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from sqlalchemy import func, select, text

from base.clock import wait_until
from base.outcomes import NotYet, OutcomeUnknown
from chaos.processes import is_stopped
from chaos.system import System
from db.models import Job
from db.models.calls import Call

#: Statements that other connections are running now.
_COUNT_ACTIVE_STATEMENTS = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND datname = current_database()"
)


def wait_for_rest(system: System, limit_seconds: float) -> float:
    """Wait until no job waits and no call is unsettled. Return the seconds it took."""
    began = time.monotonic()
    wait_until(lambda: not something_waits(system), limit_seconds=limit_seconds, every_seconds=0.2)
    return time.monotonic() - began


def stand_still(
    system: System,
    limit_seconds: float,
    waits: Callable[[System], bool] | None = None,
) -> None:
    """Stop every process (SIGSTOP) while nothing waits, and leave them stopped.

    If work waits once the processes are stopped, they continue and the attempt is repeated. After
    the limit the processes stay stopped in any case, and the count finds the work that waits.
    """
    waits = waits or (lambda system: something_waits(system) or _has_active_statement(system))
    end = time.monotonic() + limit_seconds
    while True:
        wait_until(
            lambda: not waits(system),
            limit_seconds=max(0.0, end - time.monotonic()),
            every_seconds=0.2,
        )
        _stop_all(system)
        # A statement that was sent earlier ends soon, and may stage a job.
        if wait_until(lambda: not waits(system), limit_seconds=0.5) or time.monotonic() >= end:
            return
        _signal_all(system, signal.SIGCONT)


def something_waits(system: System) -> bool:
    """Return whether a call is live or unsettled, or a job is not over."""
    # The order matters: a call leads to jobs, but a job never leads to a call.
    return _has_unsettled_call(system) or jobs_waiting(system) != 0


def jobs_waiting(system: System) -> int:
    """Count the jobs that are not over; -1 if the database does not answer."""
    query = select(func.count()).select_from(Job).where(Job.ring_at.is_not(None))
    try:
        return system.do(lambda session, _: session.scalars(query).one())
    except (NotYet, OutcomeUnknown):
        return -1


def _has_unsettled_call(system: System) -> bool:
    """Return whether a call is live at Vapi or not settled in our database."""
    live = [one for one in system.control("GET", "/vapi/calls") if one["ended"] is None]
    query = select(func.count()).select_from(Call).where(Call.settled_at.is_(None))
    try:
        return bool(live) or bool(system.do(lambda session, _: session.scalars(query).one()))
    except (NotYet, OutcomeUnknown):
        return True


def _has_active_statement(system: System) -> bool:
    try:
        return bool(system.do(lambda session, _: session.scalar(text(_COUNT_ACTIVE_STATEMENTS))))
    except (NotYet, OutcomeUnknown):
        return True


def _stop_all(system: System) -> None:
    _signal_all(system, signal.SIGSTOP)
    # The signal takes effect a moment later. A process that is being restarted has no ID.
    wait_until(
        lambda: all(pid is None or is_stopped(pid) for _, pid in _processes(system)),
        limit_seconds=5,
        every_seconds=0.01,
    )


def _signal_all(system: System, number: signal.Signals) -> None:
    for name, _ in _processes(system):
        system.supervisor.kill(name, number)


def _processes(system: System) -> list[tuple[str, int | None]]:
    # The sandbox must answer the queries of the count. No process can accept its webhooks any more.
    names = [name for name in system.supervisor.names() if name != "sandbox"]
    return [(name, system.supervisor.pid(name)) for name in names]
