"""What keeps the house from filling up."""

from __future__ import annotations

from datetime import timedelta

from base.log import get_logger
from db.jobs.retention import prune_bodies, prune_jobs
from domain.jobs.staging import stage
from domain.jobs.types import PRUNE
from workers.attempt import Run

log = get_logger(__name__)

#: Rows of each kind that one run drops at most: far within a statement's limit.
_BATCH = 2_000


def prune(run: Run) -> None:
    """This function will drop a batch of what was kept for its time, and come back for more.

    Each batch is a transaction of its own: killed in the middle, the next run goes on from there.
    """
    settings = run.settings
    jobs = prune_jobs(
        run.own, over_before=run.now - timedelta(days=settings.jobs_kept_days), limit=_BATCH
    )
    bodies = prune_bodies(
        run.own, handled_before=run.now - timedelta(days=settings.payloads_kept_days), limit=_BATCH
    )
    if _BATCH in (jobs, bodies):
        stage(run.own, PRUNE, None)
    log.info("pruned", jobs=jobs, bodies=bodies)
