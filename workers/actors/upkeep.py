"""Deletes data whose retention period is over."""

from __future__ import annotations

from datetime import timedelta

from base.log import get_logger
from db.jobs.retention import prune_bodies, prune_jobs
from domain.jobs.staging import stage
from domain.jobs.types import PRUNE
from workers.attempt import Run

log = get_logger(__name__)

#: The most rows of each kind that one run deletes, so that a statement stays within its time limit.
_BATCH = 2_000


def prune(run: Run) -> None:
    """Delete a batch of old jobs and event bodies; stage the next if more are left.

    Each batch has its own transaction. If the worker is killed, the next run continues.
    """
    settings = run.settings
    jobs = prune_jobs(
        run.job_session, over_before=run.now - timedelta(days=settings.jobs_kept_days), limit=_BATCH
    )
    bodies = prune_bodies(
        run.job_session,
        handled_before=run.now - timedelta(days=settings.payloads_kept_days),
        limit=_BATCH,
    )
    if _BATCH in (jobs, bodies):
        stage(run.job_session, PRUNE, None)
    log.info("pruned", jobs=jobs, bodies=bodies)
