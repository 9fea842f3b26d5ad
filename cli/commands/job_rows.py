"""Describes jobs as rows, in one line or with everything that is known about them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cli.errors import Failure
from db.jobs.search import POSSIBLE, Found, family, find
from db.models import InboxEvent, JobAttempt, OperatorAction


def describe_whole(session: Session, job_id: str) -> dict[str, Any]:
    """Describe a job with its attempts, its related jobs and the operator actions.

    Raises: Failure if there is no such job.
    """
    found = find(session, job_id)
    if found is None:
        raise Failure(f"no such job: {job_id}")
    job = found.job
    related = family(session, job)
    attempts = session.scalars(
        select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.attempt)
    )
    acts = session.scalars(
        select(OperatorAction).where(OperatorAction.subject == job_id).order_by(OperatorAction.id)
    )
    return {
        **describe(found),
        "staged_at": job.staged_at,
        "due_at": job.due_at,
        "lease_until": job.lease_until,
        "worker": job.worker,
        "done_at": job.done_at,
        "dead_at": job.dead_at,
        "attempt": job.attempt,
        "postponements": job.postponements,
        "cause": job.cause,
        "correlation_id": job.correlation_id,
        "event": None if related.event is None else _event(related.event),
        "possible_actions": list(POSSIBLE.get(found.state, ())),
        "attempts": [_attempt(one) for one in attempts],
        "causes": [_brief(one) for one in related.causes],
        "related_jobs": [_brief(one) for one in related.others],
        "operator_actions": [
            {
                "action": one.act,
                "operator": one.operator,
                "reason": one.why,
                "acted_at": one.acted_at,
            }
            for one in acts
        ],
    }


def describe(found: Found) -> dict[str, Any]:
    """Describe a job in one line."""
    job = found.job
    return {
        "job_id": job.id,
        "job": job.name,
        "state": found.state,
        "queue": job.queue,
        "organization_id": job.organization_id,
        "arguments": job.kwargs,
        "failures": job.failures,
        "next_notification_at": job.ring_at,
        "error": job.last_error,
    }


def _brief(found: Found) -> dict[str, Any]:
    return {"job_id": found.job.id, "job": found.job.name, "state": found.state}


def _event(event: InboxEvent) -> dict[str, Any]:
    return {
        "inbox_event_id": event.id,
        "source": event.source,
        "event_type": event.event_type,
        "external_id": event.external_id,
    }


def _attempt(one: JobAttempt) -> dict[str, Any]:
    return {
        "attempt": one.attempt,
        "worker": one.worker,
        "started_at": one.started_at,
        "ended_at": one.ended_at,
        "outcome": one.outcome,
        "error": one.error,
        "traceback": one.traceback,
    }
