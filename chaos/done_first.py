"""A worker that works in the wrong order: it commits a job as done, then runs it.

Only the sabotage done-first starts it, in place of `local.worker`.
"""

from __future__ import annotations

import sys

from sqlalchemy.orm import Session

from base.log import get_logger
from db.jobs import lifecycle as jobs
from db.jobs.attempts import Claim
from domain.jobs.types import JOB_TYPES
from local import worker
from workers import process
from workers.executor import Executor

log = get_logger(__name__)


class DoneFirst(Executor):
    """An executor that finishes and commits the job, and only then runs its actor.

    If the actor fails, the job is not repeated.
    """

    def execute(self, job_id: str) -> str:
        """Finish the job first, and run its actor second."""

        def finish(session: Session) -> Claim | None:
            claim = jobs.claim(session, job_id, worker=self.worker, lease_seconds=0)
            if claim is not None:
                jobs.finish(session, claim, worker=self.worker)
            return claim

        try:
            claim = self.database.run(finish)
            if claim is None:
                return "taken"
            self._run_actor(claim)
        except Exception as error:
            log.warning("job_failed_after_done", error=repr(error))
            return "unknown"
        return "done"

    def _run_actor(self, claim: Claim) -> None:
        actor = self.actors[claim.name]
        if JOB_TYPES[claim.name].calls_provider:
            actor(self._run_for(claim), **claim.kwargs)
        else:
            self.database.run(lambda session: actor(self._run_for(claim, session), **claim.kwargs))


def main() -> None:
    """Process queues as the run's other workers do, but with the executor `DoneFirst`."""
    vars(process)["Executor"] = DoneFirst
    worker.work(*worker.parse_arguments(sys.argv[1:]))


if __name__ == "__main__":
    main()
