"""Database.run(): the one place that commits, and the result of each failure."""

from __future__ import annotations

import ctypes
import threading
import time

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from base.clock import wait_until
from base.outcomes import NotYet, OutcomeUnknown, Refused
from db.address import driver_url, sqlalchemy_url
from db.busy import DatabaseBusy, StatementTooSlow
from db.engine import Database, clock
from db.jobs import staging
from tests.db.support import at_once, backend_of, hurried, scalar, wait_for_waiters


class Interrupted(BaseException):
    """An exception that a time limit raises in a thread, wherever it is."""


@pytest.fixture
def notified(shared):
    """What the shared database's `after_commit` received during a test."""
    received = []
    shared.after_commit = received.append
    yield received
    shared.after_commit = None


def add(session, name):
    session.execute(
        text("INSERT INTO organizations VALUES (:id, :id, clock_timestamp())"), {"id": name}
    )


def rename(session, name, to):
    session.execute(
        text("UPDATE organizations SET name = :to WHERE id = :id"), {"id": name, "to": to}
    )


def name_of(urls, name):
    return scalar(urls.owner_url, "SELECT name FROM organizations WHERE id = %s", name)


def stage(session):
    return staging.insert(session, name="x", queue="safety", kwargs={}, organization_id=None)


def terminate(urls, pid):
    assert scalar(urls.owner_url, "SELECT pg_terminate_backend(%s, 5000)", pid)


def test_run_commits_the_work_and_returns_its_result(shared, shared_urls):
    assert shared.run(lambda session: (add(session, "commits"), "result")[1]) == "result"
    assert name_of(shared_urls, "commits") == "commits"


@pytest.mark.parametrize(
    "error", [Refused("NO"), NotYet("later"), ValueError("bug"), Interrupted(), KeyboardInterrupt()]
)
def test_run_raises_the_functions_error_and_rolls_back(shared, shared_urls, notified, error):
    def work(session):
        add(session, "never")
        stage(session)
        raise error

    with pytest.raises(type(error)) as caught:
        shared.run(work)
    assert caught.value is error
    assert name_of(shared_urls, "never") is None
    assert notified == []


def test_staged_jobs_are_reported_once_and_only_after_the_commit(shared, shared_urls):
    # Given a callback that reads each reported job over another connection
    seen = []

    def keep(staged):
        seen.extend(
            (
                job.job_id,
                scalar(shared_urls.owner_url, "SELECT id FROM jobs WHERE id=%s", job.job_id),
            )
            for job in staged
        )

    shared.after_commit = keep
    try:
        # When a transaction stages a job that is due and a job that waits
        def work(session):
            staging.insert(
                session,
                name="x",
                queue="safety",
                kwargs={},
                organization_id=None,
                delay_seconds=60,
            )
            due = stage(session)
            assert seen == []
            return due

        due = shared.run(work)
    finally:
        shared.after_commit = None
    # Then only the due job was reported, and it was committed by then
    assert seen == [(due, due)]


def test_rerun_reports_only_what_the_last_run_staged(shared, notified):
    runs = []

    def work(session):
        runs.append(stage(session))
        if len(runs) < 3:
            raise_in_sql(session, "40001")

    shared.run(work)
    assert len(runs) == 3
    assert [[job.job_id for job in staged] for staged in notified] == [[runs[-1]]]


def raise_in_sql(session, sqlstate):
    session.execute(
        text(f"DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '{sqlstate}'; END $$")
    )


def test_serialization_failure_is_tried_three_times_and_then_postponed(shared):
    runs = []

    def work(session):
        runs.append(1)
        raise_in_sql(session, "40001")

    with pytest.raises(DatabaseBusy):
        shared.run(work)
    assert len(runs) == 3


def test_two_transactions_that_lock_in_opposite_order_both_commit(shared, shared_urls):
    # Given two rows, and two threads that each lock one before they request the other
    shared.run(lambda session: (add(session, "left"), add(session, "right")))
    both_hold_one = threading.Barrier(2)
    runs = []

    def cross(mine, other, me):
        def work(session):
            runs.append(me)
            rename(session, mine, me)
            if runs.count(me) == 1:
                both_hold_one.wait(timeout=10)
            rename(session, other, me)

        return lambda: shared.run(work)

    # When PostgreSQL ends the deadlock by aborting one of them
    results = at_once([cross("left", "right", "a"), cross("right", "left", "b")])
    # Then that one ran again, and the last to commit wrote both rows
    assert results == [None, None]
    assert sorted(runs) in (["a", "a", "b"], ["a", "b", "b"])
    loser = max("ab", key=runs.count)
    assert [name_of(shared_urls, row) for row in ("left", "right")] == [loser, loser]


def test_second_run_finds_the_key_of_a_concurrent_transaction(shared):
    # Given a function that inserts a missing row, and a faster transaction
    found = []

    def work(session):
        found.append(session.scalar(text("SELECT name FROM organizations WHERE id = 'taken'")))
        if found == [None]:
            shared.run(lambda other: (add(other, "taken"), rename(other, "taken", "theirs")))
        if found[-1] is None:
            add(session, "taken")

    # When its insert is refused
    shared.run(work)
    # Then it has run again, and found the row of the other transaction
    assert found == [None, "theirs"]


def test_unique_violation_is_raised_after_three_runs(shared):
    shared.run(lambda session: add(session, "for-good"))
    runs = []

    def work(session):
        runs.append(1)
        add(session, "for-good")

    with pytest.raises(IntegrityError, match="organizations_pkey"):
        shared.run(work)
    assert len(runs) == 3


def test_lock_timeout_raises_not_yet(shared):
    shared.run(lambda session: add(session, "locked"))
    with shared.engine.begin() as other:
        other.execute(text("UPDATE organizations SET name = 'b' WHERE id = 'locked'"))
        with pytest.raises(DatabaseBusy, match="LockNotAvailable"):
            shared.run(lambda session: (hurried(session), rename(session, "locked", "c")))


def test_statement_timeout_raises_not_yet(shared):
    def work(session):
        session.execute(text("SET LOCAL statement_timeout = '50ms'"))
        session.execute(text("SELECT pg_sleep(10)"))

    with pytest.raises(DatabaseBusy, match="QueryCanceled"):
        shared.run(work)


def test_exhausted_pool_raises_not_yet(shared_urls):
    small = Database(shared_urls.app_url, name="small", pool_size=1)
    small.engine.pool._timeout = 0.05
    try:
        with small.engine.connect(), pytest.raises(DatabaseBusy, match="in use"):
            small.run(clock)
    finally:
        small.close()


def test_serving_role_has_the_documented_timeouts(shared):
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "timezone")
    found = shared.run(lambda s: [s.execute(text(f"SHOW {name}")).scalar_one() for name in names])
    assert found == ["2s", "5s", "5s", "UTC"]


def test_connection_lost_before_the_commit_raises_not_yet(shared, shared_urls):
    def work(session):
        add(session, "lost-before")
        terminate(shared_urls, backend_of(session))
        rename(session, "lost-before", "again")

    with pytest.raises(DatabaseBusy):
        shared.run(work)
    assert name_of(shared_urls, "lost-before") is None
    assert shared.run(lambda session: add(session, "lost-before")) is None


def test_connection_lost_in_the_commit_raises_outcome_unknown(shared, shared_urls, notified):
    def work(session):
        stage(session)
        terminate(shared_urls, backend_of(session))

    with pytest.raises(OutcomeUnknown):
        shared.run(work)
    assert notified == []
    assert shared.run(clock)


@pytest.fixture
def slow_commit(urls):
    """A table whose rows delay or fail the commit in a deferred trigger."""
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
        owner.execute(
            """
            CREATE TABLE late (seconds float, sqlstate text);
            GRANT INSERT, SELECT ON late TO holdfast_app;
            CREATE FUNCTION check_late() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_sleep(NEW.seconds);
                IF NEW.sqlstate <> '' THEN
                    RAISE EXCEPTION 'late' USING ERRCODE = NEW.sqlstate;
                END IF;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_late();
            """
        )
    return urls


def late(session, seconds=0.0, sqlstate=""):
    session.execute(text("INSERT INTO late VALUES (:s, :c)"), {"s": seconds, "c": sqlstate})


def test_deadlock_at_the_commit_is_run_again(slow_commit, database):
    runs = []

    def work(session):
        runs.append(1)
        late(session, sqlstate="40P01" if len(runs) == 1 else "")

    database.run(work)
    assert len(runs) == 2
    assert scalar(slow_commit.owner_url, "SELECT count(*) FROM late") == 1


def test_timeout_at_the_commit_raises_not_yet(slow_commit, database):
    with pytest.raises(DatabaseBusy):
        database.run(lambda session: late(session, sqlstate="57014"))
    assert scalar(slow_commit.owner_url, "SELECT count(*) FROM late") == 0


def test_backend_that_dies_in_the_commit_raises_outcome_unknown(slow_commit, database):
    pids = []

    def kill_when_it_commits():
        assert wait_for_commit(slow_commit.owner_url, pids)
        terminate(slow_commit, pids[0])

    def work(session):
        late(session, seconds=20)
        pids.append(backend_of(session))

    results = at_once([lambda: database.run(work), kill_when_it_commits])
    assert isinstance(results[0], OutcomeUnknown)
    assert results[1] is None


def wait_for_commit(owner_url, pids):
    query = "SELECT query FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    return wait_until(
        lambda: bool(pids) and scalar(owner_url, query, pids[0]) == "COMMIT",
        limit_seconds=10,
        every_seconds=0.02,
    )


def test_interrupt_discards_the_interrupted_connection(shared):
    # Given an interrupt in the middle of a transaction
    pids = []

    def work(session):
        pids.append(backend_of(session))
        raise Interrupted

    with pytest.raises(Interrupted):
        shared.run(work)
    # Then no later transaction runs in that connection
    later = {shared.run(backend_of) for _ in range(3)}
    assert pids[0] not in later


def test_refusal_keeps_the_connection(shared_urls):
    one = Database(shared_urls.app_url, name="one", pool_size=1)
    try:
        before = one.run(backend_of)

        def refuse(session):
            raise Refused("NO")

        with pytest.raises(Refused):
            one.run(refuse)
        assert one.run(backend_of) == before
    finally:
        one.close()


def test_interrupt_during_the_commit_discards_the_connection(slow_commit, direct):
    # Given a thread in the middle of a commit
    pids, ended = [], []

    def work(session):
        late(session, seconds=1)
        pids.append(backend_of(session))

    def run():
        try:
            direct.run(work)
        except Interrupted as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert wait_for_commit(slow_commit.owner_url, pids)
    # When a time limit raises an exception in it
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted)
    )
    thread.join(timeout=20)
    # Then the interrupt is raised, and the connection is not used again
    assert len(ended) == 1
    assert pids[0] not in {direct.run(backend_of) for _ in range(2)}


def test_database_url_is_accepted_with_and_without_its_driver():
    assert sqlalchemy_url("postgres://a/b") == "postgresql+psycopg://a/b"
    assert sqlalchemy_url("postgresql://a/b") == "postgresql+psycopg://a/b"
    assert driver_url(sqlalchemy_url("postgresql://a/b")) == "postgresql://a/b"


def test_waiting_threads_are_counted(shared, shared_urls):
    # Check the helper that other tests rely on: it counts a real waiter, and nothing else.
    shared.run(lambda session: add(session, "watched"))
    with shared.engine.begin() as other:
        other.execute(text("UPDATE organizations SET name = 'b' WHERE id = 'watched'"))
        thread = threading.Thread(
            target=lambda: shared.run(lambda session: rename(session, "watched", "c"))
        )
        thread.start()
        assert wait_for_waiters(shared_urls.owner_url, 1)
    thread.join(timeout=10)
    assert name_of(shared_urls, "watched") == "c"


def test_function_that_is_idle_too_long_is_too_slow(shared):
    def idle(session):
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
        session.execute(text("SELECT 1"))
        time.sleep(1)
        session.execute(text("SELECT 1"))

    with pytest.raises(StatementTooSlow):
        shared.run(idle)


def test_error_does_not_contain_the_statements_parameters(shared):
    # Parameters would appear in logs and in jobs' rows, and may be a person's phone number
    with pytest.raises(DBAPIError) as failed:
        shared.run(lambda s: s.execute(text("SELECT 1 / (length(:x) - 12)"), {"x": "+15005550006"}))
    assert "5550006" not in str(failed.value)
