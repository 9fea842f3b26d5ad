"""Work on the database that is given up when its time is over, and undone if it was done after all.

The thread cannot be stopped: it finishes in the background, and is told that nobody waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from sqlalchemy.orm import Session

from base.log import get_logger
from db.engine import Database, clock

log = get_logger(__name__)
T = TypeVar("T")

#: Seconds in which what cannot wait is answered, from its arrival. Vapi waits 7.5 for an
#: assistant-request (docs.vapi.ai, server events).
ANSWER_SECONDS = 2.0
#: Longest statement and longest wait for a lock on these routes, in milliseconds.
_STATEMENT_MS = 1_000
_BEGIN = (
    f"SELECT clock_timestamp() AS now, set_config('statement_timeout', '{_STATEMENT_MS}ms', true),"
    f" set_config('lock_timeout', '{_STATEMENT_MS}ms', true)"
)
#: Decisions made at once by one process; each has a connection of its own.
AT_ONCE_MAX = 16


class TooLate(Exception):
    """There was no answer in time; what is done all the same is undone by itself."""


@dataclass
class _Race(Generic[T]):
    """Which came first: the thread's end, or the one who waits going away."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    is_given_up: bool = False
    result: T | None = None
    error: BaseException | None = None
    is_done: bool = False


class Urgent:
    """Short transactions for those who wait on the line, apart from all other work."""

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url, name="ingress urgent", pool_size=AT_ONCE_MAX)
        self._limiter = CapacityLimiter(AT_ONCE_MAX)

    def close(self) -> None:
        """This function will close the connections."""
        self._database.close()

    async def run(
        self,
        fn: Callable[[Session, datetime], T],
        *,
        until: float,
        undo: Callable[[Session, T, datetime], None] | None = None,
    ) -> T:
        """This function will run fn(session, now) in a transaction and give its result.

        Units: `until` on the monotonic clock. What is committed after that is given to `undo`.
        Raises: TooLate, and whatever fn raises.
        """
        race: _Race[T] = _Race()

        def work() -> None:
            try:
                result = self._database.run(lambda session: _in_time(session, fn))
            except BaseException as error:
                with race.lock:
                    race.error, race.is_done = error, True
                return
            with race.lock:
                race.result, race.is_done = result, True
                is_given_up = race.is_given_up
            if is_given_up and undo is not None:
                self._undo(undo, result)

        with anyio.move_on_after(max(0.0, until - time.monotonic())):
            await to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        with race.lock:
            if not race.is_done:
                race.is_given_up = True
                raise TooLate
        if race.error is not None:
            raise race.error
        return race.result  # type: ignore[return-value]  # done without error: fn's own

    def _undo(self, undo: Callable[[Session, T, datetime], None], result: T) -> None:
        try:
            self._database.run(lambda session: undo(session, result, clock(session)))
        except Exception as error:
            # The provider's word that the call ended at once gives the money back as well.
            log.warning("not undone", error=str(error))


def _in_time(session: Session, fn: Callable[[Session, datetime], T]) -> T:
    # For the transaction alone: a transaction pooler hands the connection to others.
    begun = session.connection().exec_driver_sql(_BEGIN).one()
    return fn(session, begun.now)
