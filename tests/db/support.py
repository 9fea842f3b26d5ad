"""Helpers for database tests: concurrent threads, other sessions and lock waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from base.clock import wait_until
from base.outcomes import NotYet
from db.address import driver_url
from db.engine import Database


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Start every job at the same moment and return results or exceptions."""
    gate = threading.Barrier(len(jobs))

    def one(job: Callable[[], Any]) -> Any:
        gate.wait(timeout=20)
        try:
            return job()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(one, jobs))


def with_retries(job: Callable[[], Any]) -> Callable[[], Any]:
    """Make a job repeat after a lock timeout, as its real callers do.

    On a busy machine any wait for a lock may time out. Nothing has changed then.
    """

    def retry() -> Any:
        for _ in range(30):
            try:
                return job()
            except NotYet:
                continue
        return job()

    return retry


def scalar(url: str, query: str, *values: Any) -> Any:
    """Query one value over a new connection."""
    with psycopg.connect(driver_url(url), autocommit=True) as connection:
        row = connection.execute(query, values or None).fetchone()
    return row[0] if row else None


def backend_of(session: Session) -> int:
    """Return the PID of the server process that runs the session's transaction."""
    return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


@contextmanager
def holding(database: Database, fn: Callable[[Session], Any]) -> Iterator[None]:
    """Hold the locks that `fn` takes while the block runs."""
    with Session(database.engine) as session:
        fn(session)
        try:
            yield
        finally:
            session.rollback()


def hurried(session: Session) -> None:
    """Set the transaction's lock timeout to a tenth of a second."""
    session.execute(text("SET LOCAL lock_timeout = '100ms'"))


class Impatient(Database):
    """A database whose transactions time out on a lock after a tenth of a second."""

    def run(self, fn: Callable[[Session], Any]) -> Any:
        return super().run(lambda session: (hurried(session), fn(session))[1])


def wait_for_waiters(owner_url: str, count: int) -> bool:
    """Poll until at least `count` sessions of the database wait for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )
    with psycopg.connect(driver_url(owner_url), autocommit=True) as connection:

        def waiting() -> bool:
            row = connection.execute(query).fetchone()
            return row is not None and row[0] >= count

        return wait_until(waiting, limit_seconds=10, every_seconds=0.01)


def one_behind_the_other(
    database: Database,
    owner_url: str,
    first: Callable[[Session], Any],
    second: Callable[[], Any],
) -> Any:
    """Run `second` while `first` is not committed, then commit `first`.

    Return the result of `second`, which had to wait for a lock that `first` held.
    """
    with Session(database.engine) as session, ThreadPoolExecutor(1) as pool:
        first(session)
        running = pool.submit(second)
        assert wait_for_waiters(owner_url, 1), "it did not wait"
        session.commit()
        return running.result(timeout=20)
