"""What tests of the database share: threads that collect what they raised, and other sessions."""

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
    """This function will start every job at the same moment and give results or exceptions."""
    gate = threading.Barrier(len(jobs))

    def one(job: Callable[[], Any]) -> Any:
        gate.wait(timeout=20)
        try:
            return job()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(one, jobs))


def patiently(job: Callable[[], Any]) -> Callable[[], Any]:
    """This function will make a job ask again where a lock was not had in time, as its callers do.

    On a machine that is busy enough any wait for a lock may end so, and nothing has changed then.
    """

    def again_and_again() -> Any:
        for _ in range(30):
            try:
                return job()
            except NotYet:
                continue
        return job()

    return again_and_again


def scalar(url: str, query: str, *values: Any) -> Any:
    """This function will ask one figure over a connection of its own."""
    with psycopg.connect(driver_url(url), autocommit=True) as connection:
        row = connection.execute(query, values or None).fetchone()
    return row[0] if row else None


def backend_of(session: Session) -> int:
    """This function will give the server process that a session's transaction runs in."""
    return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


@contextmanager
def holding(database: Database, fn: Callable[[Session], Any]) -> Iterator[None]:
    """This function will keep the locks that fn takes for as long as the block runs."""
    with Session(database.engine) as session:
        fn(session)
        try:
            yield
        finally:
            session.rollback()


def hurried(session: Session) -> None:
    """This function will make a transaction give up a lock after a tenth of a second."""
    session.execute(text("SET LOCAL lock_timeout = '100ms'"))


class Impatient(Database):
    """A database whose transactions give up a lock after a tenth of a second."""

    def run(self, fn: Callable[[Session], Any]) -> Any:
        return super().run(lambda session: (hurried(session), fn(session))[1])


def wait_for_waiters(owner_url: str, count: int) -> bool:
    """This function will poll until so many sessions of the database wait for a lock."""
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
    """This function will run second while first is not committed, and let first commit meanwhile.

    Gives what second came to, which has waited for a lock of first's before it could go on.
    """
    with Session(database.engine) as session, ThreadPoolExecutor(1) as pool:
        first(session)
        running = pool.submit(second)
        assert wait_for_waiters(owner_url, 1), "it did not wait"
        session.commit()
        return running.result(timeout=20)
