"""Run functions in transactions. Only this module commits them.

A function that is passed to `run` must change nothing outside the database, because it may be run
again.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from psycopg import errors
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown, Refused
from db.address import sqlalchemy_url
from db.busy import RERUN_WAIT_SECONDS, RUNS_MAX, DatabaseBusy, transient_error
from db.debits.combiner import Combiner
from db.jobs.staging import Staged, staged_in
from db.watchdog import Watchdog

log = get_logger(__name__)
T = TypeVar("T")

#: Conflicts with another transaction. If the function is run again, it sees the other's changes.
_CONFLICTS = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)


class Database:
    """A pool of connections with its transactions, and the combiner for single debits.

    `after_commit` receives the jobs that a committed transaction staged. It must not raise. With
    `longest_seconds`, every transaction ends after that time at the latest, even if the server is
    silent.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        pool_size: int = 10,
        longest_seconds: float | None = None,
        after_commit: Callable[[list[Staged]], None] | None = None,
    ) -> None:
        self.url = url
        self.engine: Engine = create_engine(
            sqlalchemy_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=5,
            pool_pre_ping=False,
            # Errors are logged and stored with jobs. Their text must not contain phone numbers or
            # other parameters.
            hide_parameters=True,
            # A transaction pooler may pass each transaction to another server connection, which
            # does not have the prepared statements.
            connect_args={
                "prepare_threshold": None,
                "application_name": f"holdfast {name}",
                "connect_timeout": 5,
            },
        )
        self.after_commit = after_commit
        if longest_seconds is not None:
            Watchdog(longest_seconds).watch_pool(self.engine)
        self._combiner: Combiner | None = None
        self._combiner_pid = 0
        self._making_combiner = threading.Lock()

    @property
    def combiner(self) -> Combiner:
        """The combiner of this process, created on first use."""
        if self._combiner is None or self._combiner_pid != os.getpid():
            with self._making_combiner:
                # A forked child needs its own combiner. The thread exists only in the parent, and
                # the connection belongs to the parent.
                if self._combiner is None or self._combiner_pid != os.getpid():
                    self._combiner = Combiner(self.url, after_commit=self._committed)
                    self._combiner_pid = os.getpid()
        return self._combiner

    def run(self, fn: Callable[[Session], T]) -> T:
        """Run fn(session) in one transaction, commit it, and return fn's result.

        fn runs up to three times. It is run again after a deadlock, a serialization failure, or a
        unique key that another transaction inserted first; the next run finds that row.

        Raises: DatabaseBusy if nothing was committed and a later try may succeed; OutcomeUnknown if
        the connection was lost during the commit; every exception of fn, after a rollback. After
        OutcomeUnknown the caller must repeat the operation with the same key.
        """
        for runs_left in range(RUNS_MAX - 1, -1, -1):
            try:
                return self._run_once(fn)
            except PoolTimeout as error:
                raise DatabaseBusy("database: every pooled connection is in use") from error
            except DBAPIError as error:
                cause = error.orig
                if isinstance(cause, _CONFLICTS):
                    log.warning("transaction_rerun", error=type(cause).__name__, left=runs_left)
                    if runs_left:
                        time.sleep(random.uniform(0, RERUN_WAIT_SECONDS))  # noqa: S311
                        continue
                transient = transient_error(cause)
                if transient is None:
                    raise
                raise transient from error
        raise AssertionError("unreachable")

    def now(self) -> datetime:
        """Read the database's clock, for the business time `now` of a request or a job."""
        return self.run(clock)

    def close(self) -> None:
        """Send the waiting debits, then close every connection.

        A second call changes nothing. Later debits raise DatabaseBusy.
        """
        self.combiner.stop()
        self.engine.dispose()

    def _run_once(self, fn: Callable[[Session], T]) -> T:
        with Session(self.engine, expire_on_commit=False) as session:
            try:
                result = fn(session)
                session.flush()
            except (Refused, NotYet):
                session.rollback()
                raise
            except BaseException:
                # The interruption may have happened at any point. A connection in an unknown state
                # must not return to the pool.
                session.invalidate()
                raise
            staged = staged_in(session)
            try:
                session.commit()
            except BaseException as error:
                session.invalidate()
                if isinstance(error, DBAPIError) and _is_lost(error):
                    raise OutcomeUnknown("connection lost in the commit") from error
                raise
        self._committed(staged)
        return result

    def _committed(self, staged: list[Staged]) -> None:
        if staged and self.after_commit is not None:
            self.after_commit(staged)


def clock(session: Session) -> datetime:
    """Read the database's clock as of now, not as of the transaction's start."""
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def expire_row(session: Session, model: type[Any], key: object) -> None:
    """Expire a row that plain SQL has changed, so that the session reads it again.

    `key` is the row's primary key. A row that the session has not read is left alone.
    """
    read_before = session.identity_map.get(session.identity_key(model, key))
    if read_before is not None:
        session.expire(read_before)


def _is_lost(error: DBAPIError) -> bool:
    """Return whether the server's response is missing.

    If the server reported the error itself, it has rolled the transaction back.
    """
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None
