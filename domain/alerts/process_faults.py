"""Faults of the system: stopped processes, late safety jobs, an unusable Redis.

Every relay and safety worker checks for them in turn, so that live processes report those that have
stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import Queue
from base.log import get_logger
from db import processes
from db.engine import clock
from db.models import Alert
from db.processes import SILENT_SECONDS
from domain.alerts.alerts import AlertKind, Severity, clear_alerts, raise_alert

log = get_logger(__name__)

#: Seconds after which a due safety job that no worker has claimed is overdue.
OVERDUE_SECONDS = 5.0
#: The alert is cleared once the oldest such job has been due for less than this many seconds.
OVERDUE_CLEARED_SECONDS = 2.5
#: Seconds that Redis may be unusable before a person is alerted.
REDIS_AWAY_SECONDS = 5.0

#: The kinds of alert raised here. Each alert is cleared when its fault is no longer found.
KINDS = (
    AlertKind.SAFETY_OVERDUE,
    AlertKind.QUEUE_UNSERVED,
    AlertKind.RELAY_SILENT,
    AlertKind.REDIS_AWAY,
)


@dataclass(frozen=True)
class Fault:
    """One fault: what it is, what it means for money, and what to do."""

    kind: AlertKind
    subject: str
    severity: Severity
    message: str
    details: dict[str, Any]


def find_faults(session: Session, *, overdue_seconds: float = OVERDUE_SECONDS) -> list[Fault]:
    """Find faults of the running system, without changing anything."""
    known = processes.list_processes(session)
    live = [process for process in known if process.live]
    faults = []
    if (overdue := processes.overdue_safety_jobs(session, overdue_seconds)) is not None:
        faults.append(_safety_overdue_fault(overdue))
    served = {queue for process in live for queue in process.queues}
    unserved = sorted({str(queue) for queue in Queue} - served)
    if unserved:
        faults += [
            _queue_unserved_fault(queue)
            for queue in processes.queues_with_due_work(session, unserved, SILENT_SECONDS)
        ]
    if not any(process.kind == "relay" for process in live):
        silent = [process.name for process in known if process.kind == "relay"]
        faults.append(_relay_silent_fault(silent))
    away = [process.name for process in live if process.redis_away_seconds >= REDIS_AWAY_SECONDS]
    if away:
        faults.append(_redis_away_fault(away))
    return faults


def check(session: Session, process_id: str) -> None:
    """Raise an alert for each present fault, and clear the alerts of past faults.

    The function does nothing in a process that has just started. It also does nothing if another
    process runs the check now, or did within the last 1.5 seconds.
    """
    if not processes.begin_check(session, process_id):
        return
    now = clock(session)
    processes.prune(session)
    active = {
        (kind, subject)
        for kind, subject in session.execute(
            select(Alert.kind, Alert.subject).where(
                Alert.kind.in_(KINDS), Alert.organization_id.is_(None), Alert.cleared_at.is_(None)
            )
        )
    }
    is_late = any(kind == AlertKind.SAFETY_OVERDUE for kind, _ in active)
    # An alert is cleared at a lower limit than it is raised, so that it does not flap.
    seconds = OVERDUE_CLEARED_SECONDS if is_late else OVERDUE_SECONDS
    faults = find_faults(session, overdue_seconds=seconds)
    for fault in faults:
        _raise_fault_alert(session, fault, now)
    for kind, subject in sorted(active - {(fault.kind, fault.subject) for fault in faults}):
        clear_alerts(session, AlertKind(kind), None, subject, now=now)
        log.info("system_fault_gone", kind=kind, subject=subject)


def _raise_fault_alert(session: Session, fault: Fault, now: datetime) -> None:
    details = {"message": fault.message, **fault.details}
    if raise_alert(
        session,
        fault.kind,
        None,
        fault.subject,
        severity=fault.severity,
        details=details,
        now=now,
    ):
        log.error("system_fault", kind=fault.kind, subject=fault.subject, **details)


def _safety_overdue_fault(overdue: processes.Overdue) -> Fault:
    return Fault(
        AlertKind.SAFETY_OVERDUE,
        str(Queue.SAFETY),
        Severity.CRITICAL,
        f"{overdue.jobs} safety jobs are due and no worker has claimed them, the oldest for"
        f" {overdue.seconds:.0f} s. Organizations that must stop may still spend."
        " See `holdfast worker list`, and restart or add safety workers.",
        {"jobs": overdue.jobs, "due_since": overdue.since.isoformat()},
    )


def _queue_unserved_fault(queue: str) -> Fault:
    is_urgent = queue in (Queue.SAFETY, Queue.BILLING)
    return Fault(
        AlertKind.QUEUE_UNSERVED,
        queue,
        Severity.CRITICAL if is_urgent else Severity.WARNING,
        f"The queue {queue} has due jobs and no live worker. Nothing is lost, and nothing of it"
        f" is done until `holdfast worker --queue {queue}` runs.",
        {},
    )


def _relay_silent_fault(silent: list[str]) -> Fault:
    return Fault(
        AlertKind.RELAY_SILENT,
        "relay",
        Severity.CRITICAL,
        "No relay is live. Jobs whose notification was lost, retries and periodic work such as"
        " reconciliation wait until `holdfast relay` runs.",
        {"silent": silent},
    )


def _redis_away_fault(names: list[str]) -> Fault:
    return Fault(
        AlertKind.REDIS_AWAY,
        "redis",
        Severity.CRITICAL,
        "Redis takes no work: it is down, stopped, full or read-only. Safety jobs are claimed from"
        " PostgreSQL; payments and all other work wait until Redis is back.",
        {"seen_by": names},
    )
