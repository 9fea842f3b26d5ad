"""Faults of the system itself: found by whatever still runs, told once, cleared when gone."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from base.enums import Queue
from db import processes, staging
from db.engine import Database
from db.heartbeat import Heartbeat
from db.models import Alert, ProcessRow
from domain import process_faults
from domain.alerts import list_alerts
from tests.workers.scenes import eventually

EVERY_QUEUE = [str(queue) for queue in Queue]


@pytest.fixture
def add(database):
    """Writes a process's row, as seen and started so many seconds ago."""

    def make(kind, *, queues=(), seen=0.0, started=60.0, away=None):
        beating = Heartbeat(database, kind, queues=queues, redis_away_seconds=lambda: away)
        database.run(beating.beat)
        sql(
            database,
            "UPDATE processes SET seen_at = seen_at - make_interval(secs => :seen),"
            " started_at = started_at - make_interval(secs => :started) WHERE id = :id",
            seen=seen,
            started=started,
            id=beating.process_id,
        )
        return beating.process_id

    return make


@pytest.fixture
def healthy(add):
    """A relay and a worker for every queue; gives the relay's id."""
    add("worker", queues=EVERY_QUEUE)
    return add("relay")


def sql(database, statement, **values):
    database.run(lambda session: session.execute(text(statement), values))


def stage(database, queue="safety", *, late=0.0, lease=None):
    """Stage a job that has been due for so long, under a lease that ends in so many seconds."""
    job_id = database.run(
        lambda session: staging.insert(
            session, name="work", queue=queue, kwargs={}, organization_id=None
        )
    )
    sql(
        database,
        "UPDATE jobs SET due_at = due_at - make_interval(secs => :late),"
        " lease_until = clock_timestamp() + make_interval(secs => :lease) WHERE id = :id",
        late=late,
        lease=lease,
        id=job_id,
    )
    return job_id


def found(database):
    return [(str(one.kind), one.subject) for one in database.run(process_faults.find_faults)]


def check(database, process_id):
    """Check now, however short ago the last check was; give the alerts that stand."""
    sql(database, "UPDATE processes SET checked_at = NULL")
    database.run(lambda session: process_faults.check(session, process_id))
    return standing(database)


def standing(database):
    alerts = database.run(list_alerts)
    return sorted((alert.kind, alert.subject) for alert in alerts)


def test_no_fault_is_found_while_every_process_runs(database, healthy):
    stage(database)
    assert found(database) == []


@pytest.mark.parametrize("seen", [11.0, -3_600.0])
def test_relay_counts_as_silent_when_its_row_is_old(database, add, seen):
    # An hour ahead is from before the clock was set back.
    add("worker", queues=EVERY_QUEUE)
    add("relay", seen=seen)
    assert found(database) == [("relay_silent", "relay")]


def test_queue_is_unserved_when_it_has_due_work_and_no_worker(database, add):
    add("relay")
    add("worker", queues=["safety", "billing"])
    add("worker", queues=["callbacks", "messaging"], seen=11.0)
    stage(database, "callbacks", late=11)
    stage(database, "maintenance", late=5)
    stage(database, "messaging", late=11, lease=30)
    assert found(database) == [("queue_unserved", "callbacks")]


@pytest.mark.parametrize(
    ("late", "lease", "is_overdue"),
    [(6, None, True), (4, None, False), (60, 30, False), (60, -6, True), (60, -4, False)],
)
def test_safety_job_is_overdue_when_due_and_unclaimed(database, healthy, late, lease, is_overdue):
    stage(database, late=late, lease=lease)
    stage(database, "billing", late=3_600)
    assert found(database) == ([("safety_overdue", "safety")] if is_overdue else [])


def test_redis_is_away_when_a_live_process_says_so(database, healthy, add):
    add("worker", queues=["safety"], away=4.0)
    add("worker", queues=["safety"], away=60.0, seen=11.0)
    assert found(database) == []
    add("worker", queues=["safety"], away=6.0)
    assert found(database) == [("redis_away", "redis")]


def test_check_raises_each_fault_once_and_clears_it_when_gone(database, healthy):
    # Given a late safety job and no relay but the one that checks
    job_id = stage(database, late=6)
    assert check(database, healthy) == [("safety_overdue", "safety")]
    (alert,) = database.run(list_alerts)
    assert (alert.severity, alert.organization_id) == ("critical", None)
    assert "may still spend" in alert.details["message"]

    # When it is still late, Then there is one alert
    assert check(database, healthy) == [("safety_overdue", "safety")]
    assert len(database.run(lambda session: session.query(Alert).all())) == 1

    # When it is hardly late any more, Then the alert stays; when it is done, it is cleared
    sql(database, "UPDATE jobs SET due_at = clock_timestamp() - interval '3 s'")
    assert check(database, healthy) == [("safety_overdue", "safety")]
    sql(
        database,
        "UPDATE jobs SET done_at = now(), outcome = 'done', ring_at = NULL WHERE id = :id",
        id=job_id,
    )
    assert check(database, healthy) == []


def test_alert_of_another_kind_stays_when_a_check_clears(database, healthy, add):
    sql(
        database,
        "INSERT INTO alerts (kind, subject, severity, details, raised_at)"
        " VALUES ('event_differs', 'x', 'warning', '{}', now()), ('redis_away', 'redis',"
        " 'critical', '{}', now())",
    )
    assert check(database, healthy) == [("event_differs", "x")]


def test_only_one_process_checks_at_a_time(database, healthy, add):
    other = add("relay")
    assert database.run(lambda session: processes.begin_check(session, healthy))
    assert not database.run(lambda session: processes.begin_check(session, other))
    sql(database, "UPDATE processes SET checked_at = checked_at - interval '2 s'")
    with database.engine.begin() as held:
        held.execute(text("SELECT pg_advisory_xact_lock(4713203)"))
        assert not database.run(lambda session: processes.begin_check(session, other))
    assert database.run(lambda session: processes.begin_check(session, other))


def test_process_that_has_just_started_checks_nothing(database, add):
    # Others may still be starting.
    young = add("worker", queues=["safety"], started=5.0)
    assert check(database, young) == []
    sql(database, "UPDATE processes SET started_at = started_at - interval '6 s'")
    assert check(database, young) == [("relay_silent", "relay")]


def test_row_of_a_process_silent_for_an_hour_is_deleted(database, healthy, add):
    gone, lately = add("worker", seen=3_601.0), add("worker", seen=3_500.0)
    check(database, healthy)
    left = {one.id for one in database.run(processes.list_processes)}
    assert lately in left
    assert gone not in left


def test_heartbeat_writes_its_row_again_and_again_and_deletes_it(database):
    checked = []
    beating = Heartbeat(
        database,
        "worker",
        queues=["safety"],
        check=lambda _session, process_id: checked.append(process_id),
        every_seconds=0.02,
    )
    beating.start()
    seen = set()

    def beats():
        seen.update(one.seen_at for one in database.run(lambda s: s.query(ProcessRow).all()))
        return len(seen) > 2

    assert eventually(beats)
    assert set(checked) == {beating.process_id}
    beating.stop()
    assert database.run(processes.list_processes) == []


def seen_often(database, count=3):
    """Wait until rows of processes were written so often."""
    seen = set()

    def written():
        seen.update(one.seen_at for one in database.run(lambda s: s.query(ProcessRow).all()))
        return len(seen) >= count

    return eventually(written)


def test_heartbeat_goes_on_when_its_check_fails(database):
    # Given a check that fails in a way that nobody has thought of
    checked = []

    def check(_session, process_id):
        checked.append(process_id)
        raise RuntimeError("out of memory")

    beating = Heartbeat(database, "worker", check=check, every_seconds=0.01)
    beating.start()
    # Then the process is seen to live on
    assert seen_often(database, 4)
    assert len(checked) >= 2
    beating.stop()


def test_heartbeat_checks_nothing_when_another_process_has_just_checked(
    database, healthy, monkeypatch
):
    monkeypatch.setattr(processes, "CHECK_SECONDS", 3_600)
    sql(database, "UPDATE processes SET checked_at = clock_timestamp()")
    checked = []
    beating = Heartbeat(database, "worker", check=lambda *_: checked.append(1), every_seconds=0.01)
    beating.start()
    assert seen_often(database, 5)
    beating.stop()
    assert checked == []


@pytest.fixture
def far(way):
    """The database by a way that can be cut and made silent."""
    made = Database(way.url, name="far", pool_size=2, longest_seconds=30)
    yield made
    made.close()


def beats_now():
    return any(thread.name == "heartbeat" for thread in threading.enumerate())


def test_heartbeat_ends_quietly_when_the_database_is_away(database, far, way):
    beating = Heartbeat(far, "worker", every_seconds=0.01)
    beating.start()
    assert seen_often(database)
    # When the database goes away, and the process stops, Then the thread ends without an error
    way.cut()
    beating.stop()
    assert eventually(lambda: not beats_now())
    assert len(database.run(processes.list_processes)) == 1


def test_stopping_process_does_not_wait_for_a_silent_database(database, far, way):
    beating = Heartbeat(far, "worker", every_seconds=0.01)
    beating.start()
    assert seen_often(database)
    way.deaf.set()
    assert eventually(lambda: way.silent_count > 0)
    # When the process stops, Then it leaves the thread that waits
    beating.stop()
    assert beats_now()
    way.cut()
    assert eventually(lambda: not beats_now())


def test_heartbeat_that_never_began_can_be_stopped(database):
    Heartbeat(database, "worker").stop()


def test_heartbeat_is_silent_while_its_process_hangs(database):
    working, asked = [True], []

    def is_working():
        asked.append(1)
        return bool(working)

    beating = Heartbeat(database, "relay", is_working=is_working, every_seconds=0.01)
    beating.start()
    assert eventually(lambda: len(database.run(processes.list_processes)) == 1)
    working.clear()
    # The write that was under way when the process began to hang is over once it asks again.
    asks = len(asked)
    assert eventually(lambda: len(asked) > asks + 1)
    sql(database, "DELETE FROM processes")
    asks = len(asked)
    assert eventually(lambda: len(asked) > asks + 5)
    assert database.run(processes.list_processes) == []
    beating.stop()
