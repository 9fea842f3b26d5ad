"""A worker with a wrong order: it commits a job as done before the job's effect.

Only the sabotage done-first starts it, in place of `holdfast worker`.
"""

from __future__ import annotations

import argparse

from sqlalchemy.orm import Session

from base.enums import Queue
from base.log import configure, get_logger
from base.settings import load_settings
from db.jobs import lifecycle as jobs
from db.jobs.attempts import Claim
from domain.jobs.types import JOB_TYPES
from workers import process as app
from workers.executor import Executor

log = get_logger(__name__)


class DoneFirst(Executor):
    """Finishes and commits the job, and only then runs its actor.

    If the actor fails, the job is not repeated.
    """

    def execute(self, job_id: str) -> str:
        """Run the job in the wrong order: finish first, act second."""

        def finish(session: Session) -> Claim | None:
            claim = jobs.claim(session, job_id, worker=self.worker, lease_seconds=0)
            if claim is not None:
                jobs.finish(session, claim, worker=self.worker)
            return claim

        try:
            claim = self.database.run(finish)
            if claim is None:
                return "taken"
            self._act(claim)
        except Exception as error:
            log.warning("job_failed_after_done", error=repr(error))
            return "unknown"
        return "done"

    def _act(self, claim: Claim) -> None:
        actor = self.actors[claim.name]
        if JOB_TYPES[claim.name].calls_provider:
            actor(self._run_of(claim), **claim.kwargs)
        else:
            self.database.run(lambda session: actor(self._run_of(claim, session), **claim.kwargs))


def main() -> None:
    """Process queues as `holdfast worker` does, but with the executor `DoneFirst`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--queue", action="append", type=Queue, required=True)
    parser.add_argument("--threads", type=int, required=True)
    asked = parser.parse_args()
    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    vars(app)["Executor"] = DoneFirst
    app.serve(settings, set(asked.queue), asked.threads)


if __name__ == "__main__":
    main()
