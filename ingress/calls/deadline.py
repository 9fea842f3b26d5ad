"""Runs database work with a deadline, and undoes what commits after it.

A running thread cannot be stopped. If the caller has given up, the thread finishes in the
background and then undoes its work, if the caller passed a function for that.
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

#: Seconds from a request's arrival to its answer. Vapi waits 7.5 s for the answer to an
#: assistant-request (docs.vapi.ai, server events).
ANSWER_SECONDS = 2.0
#: Longest statement and longest wait for a lock on urgent routes, in milliseconds.
_STATEMENT_MS = 1_000
_BEGIN = (
    f"SELECT clock_timestamp() AS now, set_config('statement_timeout', '{_STATEMENT_MS}ms', true),"
    f" set_config('lock_timeout', '{_STATEMENT_MS}ms', true)"
)
#: Urgent transactions at the same time in one process. Each has its own thread and connection.
AT_ONCE_MAX = 16
#: Longest transaction, in seconds. By then the caller has given up, and the next request needs
#: the thread.
_LONGEST_SECONDS = 4.0


class TooLate(Exception):
    """The deadline passed without a result.

    Work that commits later is undone in the background, if `undo` was given.
    """


@dataclass
class _Race(Generic[T]):
    """Records which happens first: the thread finishes, or the caller gives up."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    is_given_up: bool = False
    result: T | None = None
    error: BaseException | None = None
    is_done: bool = False

    def finish(self, result: T | None, error: BaseException | None) -> bool:
        """Record the thread's result. Return whether the caller still waits for it."""
        with self.lock:
            self.result, self.error, self.is_done = result, error, True
            return not self.is_given_up

    def give_up(self) -> None:
        """Record that the caller has given up, unless the thread has already finished."""
        with self.lock:
            self.is_given_up = not self.is_done


class UrgentTransactions:
    """Short transactions that a live call waits for, isolated from all other work.

    A request should be answered within `answer_seconds` of its arrival.
    """

    def __init__(self, database_url: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.answer_seconds = answer_seconds
        self._database = Database(
            database_url,
            name="ingress urgent",
            pool_size=AT_ONCE_MAX,
            longest_seconds=_LONGEST_SECONDS,
        )
        # Threads of their own. An abandoned one keeps its place until it ends, so that a slow
        # database does not get ever more requests.
        self._threads = ThreadPoolExecutor(AT_ONCE_MAX, thread_name_prefix="urgent")
        self._running: set[Future[None]] = set()

    def close(self) -> None:
        """Start nothing more, wait for running transactions, and close the connections.

        The wait is at most as long as a transaction may last. Without it, a thread could open a
        connection after the pool was closed.
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
        """Run fn(session, now) in a transaction and return its result.

        Units: `until` is a time of the monotonic clock. A result that commits later is passed to
        `undo`. Replay: if it is unknown whether fn was committed, fn runs again, so it must
        recognize its own work. Raises: TooLate, and every error of fn.
        """
        left_seconds = until - time.monotonic()
        if left_seconds <= 0:
            raise TooLate
        race: _Race[T] = _Race()
        # At the deadline, cancelling the future keeps work from starting if no thread has begun it.
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
            result = self._run_transaction(race, fn)
        except BaseException as error:
            race.finish(None, error)
            return
        if not race.finish(result, None) and undo is not None:
            self._undo(undo, result)

    def _run_transaction(self, race: _Race[T], fn: Callable[[Session, datetime], T]) -> T:
        try:
            return self._database.run(lambda session: _run_with_limits(session, fn))
        except OutcomeUnknown:
            if race.is_given_up:
                # No caller used the result. The provider's report of the end releases the money.
                raise
            return self._database.run(lambda session: _run_with_limits(session, fn))

    def _undo(self, undo: Callable[[Session, T, datetime], None], result: T) -> None:
        try:
            self._database.run(lambda session: undo(session, result, clock(session)))
        except Exception as error:
            # The provider's report that the call ended at once releases the money as well.
            log.warning("late_admission_not_undone", error=str(error))


def _run_with_limits(session: Session, fn: Callable[[Session, datetime], T]) -> T:
    # The settings apply to this transaction only, because a pooler shares the connection.
    begun = session.connection().exec_driver_sql(_BEGIN).one()
    return fn(session, begun.now)
