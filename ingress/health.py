"""Health: alive says that the process answers, ready that it can store what it is sent."""

from __future__ import annotations

from anyio import to_thread
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from base.outcomes import NotYet, OutcomeUnknown
from base.problems import Problem
from db.engine import Database
from ingress.answers import problem_response


async def healthz(_request: Request) -> Response:
    """This function will answer while the process lives."""
    return JSONResponse({"status": "ok"})


class Ready:
    """Asks the database; Redis is not asked, since events are taken in without it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def answer(self, _request: Request) -> Response:
        """This function will answer 200 when the database can be asked, else 503."""
        try:
            await to_thread.run_sync(
                lambda: self._database.run(lambda session: session.execute(text("SELECT 1")).one())
            )
        except (NotYet, OutcomeUnknown):
            return problem_response(Problem(503, "Not ready", "PostgreSQL cannot be reached."))
        return JSONResponse({"status": "ready"})
