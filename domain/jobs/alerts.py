"""Alerts of jobs about money or safety that died or were refused.

They are raised where the job ends. If a refusal has a business reason, it has an alert of its own
kind, such as `payment_unsettled`, and is not reported again here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select, text, update
from sqlalchemy.orm import Session

from base.enums import Queue
from db.models import Alert
from domain.alerts.alerts import AlertKind, Severity, raise_alert
from domain.jobs.declaration import JobType
from domain.jobs.types import JOB_TYPES

#: Characters of an error that an alert keeps. The job's row and its attempts keep the rest.
_ERROR_LENGTH_MAX = 500
#: Queues whose jobs concern money or safety.
_ALERTED_QUEUES = (Queue.SAFETY, Queue.BILLING)
# Written for the driver, because nearly every finished job runs it and finds nothing.
_CLEAR_WORK = (
    f"UPDATE alerts SET cleared_at = %(now)s WHERE kind = '{AlertKind.JOB_DEAD}'"  # noqa: S608
    " AND cleared_at IS NULL AND details @> CAST(%(work)s AS jsonb)"
)
_WHOSE = """
    SELECT o.id FROM jobs j JOIN organizations o ON o.id = j.organization_id WHERE j.id = :id
"""


def alert_job_ended(
    session: Session,
    job_id: str,
    name: str,
    arguments: Mapping[str, Any],
    *,
    state: str,
    error: str,
    now: datetime,
) -> bool:
    """Raise the alert of a job that ended "dead" or "refused".

    Return False if none was raised. The caller calls it in the transaction that ends the job. A job
    that concerns neither money nor safety raises none. A refusal raises none if the same work was
    refused before and that alert is active. Otherwise one cause would raise an alert for each job
    that it refuses.
    """
    job = JOB_TYPES[name]
    if not _is_alerted(job):
        return False
    if state == "refused" and _has_open_alert(session, name, arguments):
        return False
    return raise_alert(
        session,
        AlertKind.JOB_DEAD,
        session.execute(text(_WHOSE), {"id": job_id}).scalar_one_or_none(),
        job_id,
        severity=Severity.CRITICAL,
        details={
            "job": name,
            "arguments": dict(arguments),
            "state": state,
            "error": _storable(error),
            "meaning": job.death_means,
            "next": f"holdfast job show {job_id}; then job redrive, or job discard if it is dead",
        },
        now=now,
    )


def clear_work_alerts(
    session: Session, name: str, arguments: Mapping[str, Any], now: datetime
) -> None:
    """Clear the alerts of jobs whose work another job of the same name has now done.

    The caller calls it in the transaction that finishes that job. Pending changes of the session
    are not flushed.
    """
    if not _is_alerted(JOB_TYPES[name]):
        return
    work = json.dumps({"job": name, "arguments": dict(arguments)})
    session.connection().exec_driver_sql(_CLEAR_WORK, {"now": now, "work": work})


def clear_job_alert(session: Session, job_id: str, now: datetime) -> None:
    """Clear the alert of a job that an operator redrives or discards.

    If a redriven job dies or is refused again, its alert is raised again.
    """
    _clear(session, Alert.subject == job_id, now)


def _is_alerted(job: JobType) -> bool:
    return job.queue in _ALERTED_QUEUES or bool(job.death_means)


def _clear(session: Session, which: ColumnElement[bool], now: datetime) -> None:
    session.execute(
        update(Alert)
        .where(Alert.kind == str(AlertKind.JOB_DEAD), Alert.cleared_at.is_(None), which)
        .values(cleared_at=now)
        .execution_options(synchronize_session=False)
    )


def _has_open_alert(session: Session, name: str, arguments: Mapping[str, Any]) -> bool:
    same = {"job": name, "arguments": dict(arguments), "state": "refused"}
    found = session.scalar(
        select(Alert.id)
        .where(
            Alert.kind == str(AlertKind.JOB_DEAD),
            Alert.cleared_at.is_(None),
            Alert.details.contains(same),
        )
        .limit(1)
    )
    return found is not None


def _storable(error: str) -> str:
    # PostgreSQL's text type stores neither NUL nor a lone surrogate, which a provider's error might
    # contain.
    short = error[:_ERROR_LENGTH_MAX].replace("\x00", "")
    return short.encode("utf-8", "replace").decode("utf-8")
