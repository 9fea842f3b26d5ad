"""The context of one attempt at a job: its transactions, providers and outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from sqlalchemy.orm import Session

from base.log import get_logger
from base.outcomes import Refused
from base.settings import Settings
from db.engine import Database, clock
from db.jobs import lifecycle as jobs
from db.jobs import staging
from db.jobs.attempts import Claim
from db.jobs.staging import Cause
from domain.jobs.alerts import clear_work_alerts
from domain.jobs.types import JOB_TYPES
from providers.registry import Providers
from workers.provider_waits import ProviderWaits

log = get_logger(__name__)
T = TypeVar("T")


class LeaseTooOld(Exception):
    """Half of the lease is over, so a request that cannot be repeated is not sent."""


@dataclass(frozen=True)
class Later:
    """An actor's result: run the job again after `seconds`; no attempt is used up."""

    seconds: float
    detail: str


@dataclass
class Run:
    """One attempt at one job.

    An actor that uses only our database works in `session`. Its transaction also finishes the job.
    An actor that calls a provider has no session. It stores its intention in `transaction`, calls
    the provider without holding locks, and stores the answer in `record`. `record` finishes the job
    in the same commit.
    """

    database: Database
    providers: Providers
    settings: Settings
    waits: ProviderWaits
    claim: Claim
    worker: str
    now: datetime
    session: Session | None = None
    #: How the attempt ended: "done", "refused", "postponed", or "taken" by a newer claim.
    outcome: str | None = None
    _began: float = field(default_factory=time.monotonic)

    @property
    def job_session(self) -> Session:
        """The session of an actor that uses only our database.

        Raises: TypeError for an actor that calls a provider.
        """
        if self.session is None:
            raise TypeError(f"{self.claim.name} calls a provider: it has no transaction to share")
        return self.session

    def transaction(self, fn: Callable[[Session], T]) -> T:
        """Run fn(session) in its own transaction and commit it."""

        def work(session: Session) -> T:
            set_cause(session, self.claim)
            self.now = clock(session)
            return fn(session)

        return self.database.run(work)

    def record(self, fn: Callable[[Session], Later | None]) -> None:
        """Store the provider's answer and end the attempt in one commit.

        The job is finished, or postponed if fn returns a Later. If a newer claim has the job, the
        answer is still stored, and the job is left unchanged.
        """

        def work(session: Session) -> str:
            jobs.lock_claimed(session, self.claim)
            later = fn(session)
            session.flush()
            if later is None:
                ended = jobs.finish(session, self.claim, worker=self.worker)
                if ended:
                    clear_work_alerts(session, self.claim.name, self.claim.kwargs, self.now)
                return "done" if ended else "taken"
            ended = jobs.postpone(
                session,
                self.claim,
                worker=self.worker,
                delay_seconds=later.seconds,
                detail=later.detail,
            )
            return "postponed" if ended else "taken"

        self.outcome = self.transaction(work)

    def refuse(self, refused: Refused, fn: Callable[[Session], None]) -> None:
        """End the attempt as refused, together with what fn stores, in one commit.

        Use this method for a refusal with a business reason. The refusal raises no `job_dead`
        alert. If a person must act, fn must raise another alert.
        """

        def work(session: Session) -> str:
            jobs.lock_claimed(session, self.claim)
            fn(session)
            session.flush()
            ended = jobs.finish(
                session, self.claim, worker=self.worker, outcome="refused", error=str(refused)
            )
            return "refused" if ended else "taken"

        self.outcome = self.transaction(work)
        log.info("job_refused", code=refused.code, detail=refused.detail)

    def check_lease(self) -> None:
        """Check that enough of the lease is left to send another request.

        A request that is sent later could take effect while another worker has the lease.

        Raises: LeaseTooOld after half of the lease.
        """
        lease_seconds = JOB_TYPES[self.claim.name].lease_seconds
        if time.monotonic() - self._began > lease_seconds / 2:
            raise LeaseTooOld(self.claim.name)


def set_cause(session: Session, claim: Claim) -> None:
    """Set the claimed job as the cause of all jobs staged in this session.

    The staged jobs also get the correlation ID of the claimed job.
    """
    staging.set_cause(session, Cause(claim.job_id, claim.correlation_id))
