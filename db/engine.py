"""The one place that opens a transaction and commits it.

A function given to run() has no effect but on the database, so it may be run again.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown, Refused
from db.address import sqlalchemy_url
from db.busy import RERUN_WAIT_SECONDS, RUNS_MAX, DatabaseBusy, StatementTooSlow
from db.debits.combiner import Combiner
from db.jobs.staging import Staged, staged_in
from db.watchdog import Patience

log = get_logger(__name__)
T = TypeVar("T")

#: What another transaction is to blame for: run again, the function meets what that one left.
_OVERTAKEN = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)
#: What the function itself is to blame for: run again, it would most likely end the same way.
_TOO_SLOW = (errors.QueryCanceled, errors.IdleInTransactionSessionTimeout)


class Database:
    """A pool of connections and the transactions on it, and the shared door for single debits.

    `after_commit` is told the jobs that a committed transaction staged; it must not raise. With
    `longest_seconds` a transaction ends after that at the latest, also where the server is silent.
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
            # An error's text goes to logs and to the jobs' rows: numbers and ids stay out of it.
            hide_parameters=True,
            # Prepared statements do not survive a transaction pooler that moves us about.
            connect_args={
                "prepare_threshold": None,
                "application_name": f"holdfast {name}",
                "connect_timeout": 5,
            },
        )
        self.after_commit = after_commit
        self._patience = None if longest_seconds is None else Patience(self.engine, longest_seconds)
        self._combiner: Combiner | None = None
        self._combiner_pid = 0
        self._making_combiner = threading.Lock()

    @property
    def combiner(self) -> Combiner:
        """The one combiner of this process, made when first asked for."""
        if self._combiner is None or self._combiner_pid != os.getpid():
            with self._making_combiner:
                # A fork's child has neither the thread nor the connection: they are the parent's.
                if self._combiner is None or self._combiner_pid != os.getpid():
                    self._combiner = Combiner(self.url, after_commit=self._committed)
                    self._combiner_pid = os.getpid()
        return self._combiner

    def run(self, fn: Callable[[Session], T]) -> T:
        """This function will run fn(session) in one transaction and commit it.

        Replay: fn is run again, at most three times in all, after a deadlock, a serialization
        failure, or a unique key that another took before it, which it then finds. Raises:
        DatabaseBusy when nothing was committed and later may work; OutcomeUnknown when the
        connection was lost in the commit itself, so that the caller repeats by key; and whatever
        fn raises, after a rollback.
        """
        for left in range(RUNS_MAX - 1, -1, -1):
            try:
                return self._run_once(fn)
            except PoolTimeout as error:
                raise DatabaseBusy("database: every pooled connection is in use") from error
            except DBAPIError as error:
                cause = error.orig
                if isinstance(cause, _OVERTAKEN):
                    log.warning("transaction re-run", error=type(cause).__name__, left=left)
                    if left:
                        time.sleep(random.uniform(0, RERUN_WAIT_SECONDS))  # noqa: S311
                        continue
                if isinstance(cause, _TOO_SLOW):
                    raise StatementTooSlow(f"database: {type(cause).__name__}") from error
                if _is_passing(cause):
                    raise DatabaseBusy(f"database: {type(cause).__name__}") from error
                raise
        raise AssertionError("unreachable")

    def now(self) -> datetime:
        """This function will ask the database for its clock: business time for an edge."""
        return self.run(clock)

    def close(self) -> None:
        """This function will carry out the debits that wait, then close every connection.

        Replay: nothing happens. A debit that comes later is told DatabaseBusy.
        """
        self.combiner.stop()
        self.engine.dispose()
        if self._patience is not None:
            self._patience.stop()

    def _run_once(self, fn: Callable[[Session], T]) -> T:
        with Session(self.engine, expire_on_commit=False) as session:
            try:
                result = fn(session)
                session.flush()
            except (Refused, NotYet):
                session.rollback()
                raise
            except BaseException:
                # Interrupted anywhere, the connection's state is anybody's guess.
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
    """This function will read the database's clock, not the transaction's start."""
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def forget(session: Session, model: type[Any], key: object) -> None:
    """This function will have a row read again that SQL of ours changed behind the session's back.

    Units: `key` is its primary key. Replay: one that was never read stays so.
    """
    read_before = session.identity_map.get(session.identity_key(model, key))
    if read_before is not None:
        session.expire(read_before)


def _is_lost(error: DBAPIError) -> bool:
    """Whether no answer came: where the server itself said no, the transaction was rolled back."""
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None


def _is_passing(cause: BaseException | None) -> bool:
    return isinstance(
        cause,
        errors.LockNotAvailable
        | errors.DeadlockDetected
        | errors.SerializationFailure
        # Another server was put in its place, where the next connection may lead.
        | errors.ReadOnlySqlTransaction,
    ) or (isinstance(cause, psycopg.OperationalError) and not isinstance(cause, errors.DiskFull))
