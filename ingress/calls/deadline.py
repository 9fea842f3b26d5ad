"""Work on the database that is given up when its time is over, and undone if it was done after all.

The thread cannot be stopped: it finishes in the background, and is told that nobody waits.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy.orm import Session

from base.log import get_logger
from base.outcomes import OutcomeUnknown
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
#: Decisions made at once by one process; each has a thread and a connection of its own.
AT_ONCE_MAX = 16
#: Longest transaction, in seconds: nobody waits for it any more, and the next one needs its place.
_LONGEST_SECONDS = 4.0


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

    def finish(self, result: T | None, error: BaseException | None) -> bool:
        """This function will note the thread's end; True if somebody still waits for it."""
        with self.lock:
            self.result, self.error, self.is_done = result, error, True
            return not self.is_given_up

    def give_up(self) -> None:
        """This function will note that nobody waits any more, if it is not done already."""
        with self.lock:
            self.is_given_up = not self.is_done


class Urgent:
    """Short transactions for those who wait on the line, apart from all other work."""

    def __init__(self, database_url: str) -> None:
        self._database = Database(
            database_url,
            name="ingress urgent",
            pool_size=AT_ONCE_MAX,
            longest_seconds=_LONGEST_SECONDS,
        )
        # Threads of our own: one that was given up still takes a place until it has come to its
        # end, so that a slow database is not asked by ever more of them.
        self._threads = ThreadPoolExecutor(AT_ONCE_MAX, thread_name_prefix="urgent")
        self._running: set[Future[None]] = set()

    def close(self) -> None:
        """Start nothing more, wait for running transactions, and close the connections.

        The wait is as long as a transaction may last. Without it, a thread could open a connection
        after the pool was closed.
        """
        self._threads.shutdown(wait=False, cancel_futures=True)
        wait(tuple(self._running), timeout=_LONGEST_SECONDS)
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
        Replay: fn is run again where it is not known whether it was committed, so it must know its
        own work again. Raises: TooLate, and whatever fn raises.
        """
        left_seconds = until - time.monotonic()
        if left_seconds <= 0:
            raise TooLate
        race: _Race[T] = _Race()
        # Cancelled, what no thread has begun is not begun at all.
        work = self._threads.submit(self._work, race, fn, undo)
        self._running.add(work)
        work.add_done_callback(self._running.discard)
        future = asyncio.wrap_future(work)
        try:
            await asyncio.wait([future], timeout=left_seconds)
        finally:
            race.give_up()
            future.cancel()
        if race.is_given_up:
            raise TooLate
        if race.error is not None:
            raise race.error
        return race.result  # type: ignore[return-value]  # done without error: fn's own

    def _work(
        self,
        race: _Race[T],
        fn: Callable[[Session, datetime], T],
        undo: Callable[[Session, T, datetime], None] | None,
    ) -> None:
        try:
            result = self._decide(race, fn)
        except BaseException as error:
            race.finish(None, error)
            return
        if not race.finish(result, None) and undo is not None:
            self._undo(undo, result)

    def _decide(self, race: _Race[T], fn: Callable[[Session, datetime], T]) -> T:
        try:
            return self._database.run(lambda session: _in_time(session, fn))
        except OutcomeUnknown:
            if race.is_given_up:
                # Nobody was let in by it: its provider's word that it is over gives all back.
                raise
            return self._database.run(lambda session: _in_time(session, fn))

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
