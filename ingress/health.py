"""Health checks: /healthz for the process, /readyz for storing webhooks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from anyio import to_thread
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from base.problems.details import Problem
from base.problems.requests import NOT_READY
from db.engine import Database
from db.heartbeat import Heartbeat
from domain.alerts.process_faults import find_faults
from ingress.http.responses import problem_response

log = get_logger(__name__)

#: /readyz queries the database at most once in this many seconds, however often it is requested.
_KEPT_SECONDS = 1.0
#: Writes about 200 KB to a temporary file and drops it. A full disk may still accept a small row
#: in an existing page, and then refuse the next webhook.
_SPILL = "SELECT count(*) FROM generate_series(1, 16000)"
_SPILL_SETTINGS = (
    "SELECT set_config('work_mem', '64kB', true), set_config('temp_tablespaces', '', true)"
)


async def healthz(_request: Request) -> Response:
    """Answer as long as the process is alive."""
    return JSONResponse({"status": "ok"})


class Ready:
    """Reports whether webhooks can be stored now, and the system's other faults.

    Redis is not checked, since webhooks are stored without it. Stopped workers or relays do not
    make the ingress unready either: webhooks are still stored, and their jobs wait.
    """

    def __init__(
        self, database: Database, heartbeat: Heartbeat, *, kept_seconds: float = _KEPT_SECONDS
    ) -> None:
        self._database = database
        self._heartbeat = heartbeat
        self._kept_seconds = kept_seconds
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._found: Problem | list[dict[str, Any]] = []

    async def answer(self, _request: Request) -> Response:
        """Answer 503 if PostgreSQL accepts no write; otherwise 200, with any faults."""
        # Simultaneous requests share one query.
        async with self._asking:
            if self._asked_at is None or time.monotonic() - self._asked_at >= self._kept_seconds:
                self._found = await to_thread.run_sync(self._ask)
                self._asked_at = time.monotonic()
            found = self._found
        if isinstance(found, Problem):
            return problem_response(found)
        if found:
            return JSONResponse({"status": "degraded", "faults": found})
        return JSONResponse({"status": "ready"})

    def _ask(self) -> Problem | list[dict[str, Any]]:
        try:
            return self._database.run(self._write_and_check)
        except (NotYet, OutcomeUnknown, SQLAlchemyError) as error:
            log.warning("not_ready", error=str(error))
            return Problem(NOT_READY, _reason(error))

    def _write_and_check(self, session: Session) -> list[dict[str, Any]]:
        self._heartbeat.beat(session)
        session.execute(text(_SPILL_SETTINGS))
        session.execute(text(_SPILL)).one()
        return [
            {
                "kind": str(fault.kind),
                "subject": fault.subject,
                "severity": str(fault.severity),
                "message": fault.message,
            }
            for fault in find_faults(session)
        ]


def _reason(error: BaseException) -> str:
    """Name the reason why PostgreSQL cannot store, as far as its error shows it."""
    cause: BaseException | None = error
    while cause is not None:
        origin = getattr(cause, "orig", None) or cause
        if isinstance(origin, errors.ReadOnlySqlTransaction):
            return "PostgreSQL is read-only: nothing can be stored."
        if isinstance(origin, errors.DiskFull):
            return "PostgreSQL's disk is full: nothing can be stored."
        cause = cause.__cause__
    return "PostgreSQL cannot be reached, or does not answer in time."
