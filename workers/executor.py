"""Run one job and store its outcome in its row. Dramatiq never retries a job.

The executor raises no error to Dramatiq, and every message is acknowledged, because a message is
only a notification.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dramatiq.middleware import Interrupt
from sqlalchemy.orm import Session

from base.log import bound, get_logger
from base.outcomes import NotYet, ProviderUnavailable, Refused
from base.settings import Settings
from db.busy import StatementTooSlow
from db.engine import Database, clock
from db.jobs import lifecycle as jobs
from db.jobs.attempts import Claim
from domain.jobs.alerts import alert_job_ended, clear_work_alerts
from domain.jobs.types import JOB_TYPES, call_class_of
from providers.registry import Providers
from workers.attempt import Run, set_cause
from workers.provider_waits import PRODUCTION_WAITS, ProviderWaits

log = get_logger(__name__)
#: A longer Retry-After of a provider counts as this many seconds.
RETRY_AFTER_SECONDS_MAX = 60.0
Actor = Callable[..., Any]


@dataclass
class _Attempt:
    """The state of one execution: the claim, and how the job ended.

    The first transaction sets `claim`, or `buried` if it ended the job as dead.
    """

    claim: Claim | None = None
    buried: bool = False
    #: How the actor's last transaction ended the job.
    outcome: str = "done"


class Executor:
    """Claims jobs, calls their actors, and writes the outcomes to the jobs' rows."""

    def __init__(
        self,
        database: Database,
        providers: Providers,
        settings: Settings,
        actors: Mapping[str, Actor],
        worker: str,
        *,
        waits: ProviderWaits = PRODUCTION_WAITS,
    ) -> None:
        self.database = database
        self.providers = providers
        self.settings = settings
        self.actors = actors
        self.worker = worker
        self.waits = waits

    def execute(self, job_id: str) -> str:
        """Run the job if it is free, and return the outcome.

        The outcome is "done", "refused", "postponed", "failed" or "dead". It is "taken" if the job
        was already over or another worker has it. It is "unknown" if the outcome could not be
        stored; the relay then repeats the notification.
        """
        attempt = _Attempt()
        began = time.monotonic()
        with bound(job=job_id):
            try:
                self._run_job(job_id, attempt)
            except (Exception, Interrupt) as error:
                try:
                    return self._record_error(attempt.claim, error)
                except (Exception, Interrupt) as second:
                    log.warning("job_outcome_not_recorded", error=repr(error), second=repr(second))
                    return "unknown"
            if attempt.claim is not None and attempt.outcome == "done":
                _log_done(attempt.claim, time.monotonic() - began)
        if attempt.claim is None:
            return "dead" if attempt.buried else "taken"
        return attempt.outcome

    def _run_job(self, job_id: str, attempt: _Attempt) -> None:
        self.database.run(lambda session: self._claim_or_run(session, job_id, attempt))
        claim = attempt.claim
        if claim is None or not claim.committed:
            return
        with bound(correlation_id=claim.correlation_id, job_name=claim.name):
            if JOB_TYPES[claim.name].calls_provider:
                run = self._run_for(claim)
                self.actors[claim.name](run, **claim.kwargs)
                if run.outcome is None:
                    raise TypeError(f"{claim.name} ended without recording anything")
                attempt.outcome = run.outcome
            elif not self.database.run(lambda session: self._run_claimed(session, claim)):
                attempt.outcome = "taken"

    def _claim_or_run(self, session: Session, job_id: str, attempt: _Attempt) -> None:
        """Run a job that uses only our database; commit the claim of any other.

        A claim is also committed if the job failed before or may be killing its workers.
        """
        attempt.claim, attempt.buried = None, False
        claim = jobs.claim(session, job_id, worker=self.worker, lease_seconds=0)
        if claim is None:
            return
        job_type = JOB_TYPES.get(claim.name)
        if job_type is None:
            # The job type is newer than this worker. The relay repeats the notification until a
            # worker that knows the type takes it.
            log.error("job_name_unknown", job_name=claim.name)
        elif claim.failures >= job_type.policy.attempts:
            error = "out of attempts: its workers died"
            self._bury(session, claim, error, None)
            log.error("job_dead", job_name=claim.name, error=error)
            attempt.buried = True
        elif job_type.calls_provider or claim.failures or claim.may_kill_workers:
            # A job that was notified several times without an outcome may be killing its workers.
            # Its attempts must count although its work never commits, so the claim is committed
            # before the work. The same applies to a job that has failed before.
            attempt.claim = jobs.claim(
                session, job_id, worker=self.worker, lease_seconds=job_type.lease_seconds
            )
        else:
            attempt.claim = claim
            with bound(correlation_id=claim.correlation_id, job_name=claim.name):
                self._act_and_finish(session, claim)

    def _run_claimed(self, session: Session, claim: Claim) -> bool:
        """Run a job under its committed claim; return False if the claim was lost."""
        is_valid = jobs.lock_claimed(session, claim)
        if is_valid:
            self._act_and_finish(session, claim)
        return is_valid

    def _act_and_finish(self, session: Session, claim: Claim) -> None:
        set_cause(session, claim)
        self.actors[claim.name](self._run_for(claim, session), **claim.kwargs)
        session.flush()
        if jobs.finish(session, claim, worker=self.worker):
            clear_work_alerts(session, claim.name, claim.kwargs, claim.started_at)

    def _run_for(self, claim: Claim, session: Session | None = None) -> Run:
        return Run(
            self.database,
            self.providers.for_class(call_class_of(claim.queue)),
            self.settings,
            self.waits,
            claim,
            self.worker,
            claim.started_at,
            session,
        )

    def _record_error(self, claim: Claim | None, error: BaseException) -> str:
        if claim is None:
            raise error
        with bound(correlation_id=claim.correlation_id, job_name=claim.name):
            if isinstance(error, Refused):
                log.info("job_refused", code=error.code, detail=error.detail)
                refusal = str(error)
                self._commit_outcome(lambda session: self._refuse(session, claim, refusal))
                return "refused"
            if isinstance(error, NotYet) and not isinstance(error, StatementTooSlow):
                self._commit_outcome(
                    lambda s: jobs.postpone(
                        s,
                        claim,
                        worker=self.worker,
                        delay_seconds=error.delay_seconds,
                        detail=error.detail,
                    )
                )
                return "postponed"
            return self._record_failure(claim, error)

    def _record_failure(self, claim: Claim, error: BaseException) -> str:
        policy = JOB_TYPES[claim.name].policy
        failures = claim.failures + 1
        retry_seconds: float | None = None
        if failures < policy.attempts and not isinstance(error, policy.permanent):
            requested_seconds = (
                error.retry_after_seconds if isinstance(error, ProviderUnavailable) else None
            )
            # Retry-After is followed, but no header may delay a suspension or a payment for a day.
            retry_seconds = max(
                policy.wait_seconds(failures), min(requested_seconds or 0, RETRY_AFTER_SECONDS_MAX)
            )
        trace = "".join(traceback.format_exception(error))
        if retry_seconds is None:
            self._commit_outcome(lambda session: self._bury(session, claim, repr(error), trace))
            log.error("job_dead", error=repr(error), failures=failures)
            return "dead"
        self._commit_outcome(
            lambda s: jobs.fail(
                s,
                claim,
                worker=self.worker,
                error=repr(error),
                traceback=trace,
                retry_seconds=retry_seconds,
            )
        )
        log.warning("job_failed", error=repr(error), failures=failures, retry_seconds=retry_seconds)
        return "failed"

    def _bury(self, session: Session, claim: Claim, error: str, trace: str | None) -> bool:
        """Bury the job and raise an alert in one commit, if the claim is still valid."""
        ended = jobs.fail(
            session, claim, worker=self.worker, error=error, traceback=trace, retry_seconds=None
        )
        if ended:
            _alert_ended(session, claim, "dead", error)
        return ended

    def _refuse(self, session: Session, claim: Claim, error: str) -> bool:
        """Refuse the job and raise an alert in one commit, if the claim is still valid."""
        ended = jobs.finish(session, claim, worker=self.worker, outcome="refused", error=error)
        if ended:
            _alert_ended(session, claim, "refused", error)
        return ended

    def _commit_outcome(self, write: Callable[[Session], bool]) -> None:
        self.database.run(write)


def _log_done(claim: Claim, seconds: float) -> None:
    # Called after the commit. A rollback would make the line wrong.
    log.info(
        "job_done",
        job_name=claim.name,
        organization=claim.organization_id,
        duration_ms=round(seconds * 1000, 1),
        correlation_id=claim.correlation_id,
    )


def _alert_ended(session: Session, claim: Claim, state: str, error: str) -> None:
    alert_job_ended(
        session,
        claim.job_id,
        claim.name,
        claim.kwargs,
        state=state,
        error=error,
        now=clock(session),
    )
