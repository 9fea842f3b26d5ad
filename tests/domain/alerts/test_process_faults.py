"""Faults of the system itself: found by any live process, alerted once.

The alert is cleared when the fault is gone.
"""

from __future__ import annotations

import pytest
from sqlalchemy import text

from base.enums import Queue
from db import processes
from db.heartbeat import Heartbeat
from db.jobs import staging
from db.models import Alert
from domain.alerts import process_faults
from domain.alerts.queries import list_alerts
from tests.support.world import make_organization

EVERY_QUEUE = [str(queue) for queue in Queue]


@pytest.fixture
def add(database):
    """Write a process's row with the given ages of its last write and its start."""

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
    """A relay and a worker for every queue; returns the relay's ID."""
    add("worker", queues=EVERY_QUEUE)
    return add("relay")


def sql(database, statement, **values):
    database.run(lambda session: session.execute(text(statement), values))


def stage(database, queue="safety", *, late=0.0, lease=None):
    """Stage a job that is `late` seconds overdue, with a lease of `lease` seconds."""
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
    """Check now, whenever the last check was, and return the open alerts."""
    sql(database, "UPDATE processes SET checked_at = NULL")
    database.run(lambda session: process_faults.check(session, process_id))
    return open_alerts(database)


def open_alerts(database):
    alerts = database.run(list_alerts)
    return sorted((alert.kind, alert.subject) for alert in alerts)


def test_no_fault_is_found_while_every_process_runs(database, healthy):
    stage(database)
    assert found(database) == []


@pytest.mark.parametrize("seen", [11.0, -3_600.0])
def test_relay_counts_as_silent_when_its_row_is_old(database, add, seen):
    # An instant an hour ahead was written before the clock was set back.
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
    ("queue", "severity"),
    [("billing", "critical"), ("callbacks", "warning"), ("maintenance", "warning")],
)
def test_unserved_queue_is_critical_when_it_concerns_money(database, add, queue, severity):
    add("relay")
    stage(database, queue, late=11)
    assert [one.severity for one in database.run(process_faults.find_faults)] == [severity]


@pytest.mark.parametrize(
    ("late", "lease", "is_overdue"),
    [(6, None, True), (4, None, False), (60, 30, False), (60, -6, True), (60, -4, False)],
)
def test_safety_job_is_overdue_when_due_and_unclaimed(database, healthy, late, lease, is_overdue):
    stage(database, late=late, lease=lease)
    stage(database, "billing", late=3_600)
    assert found(database) == ([("safety_overdue", "safety")] if is_overdue else [])


def test_redis_is_away_when_a_live_process_reports_it(database, healthy, add):
    add("worker", queues=["safety"], away=4.0)
    add("worker", queues=["safety"], away=60.0, seen=11.0)
    assert found(database) == []
    add("worker", queues=["safety"], away=6.0)
    assert found(database) == [("redis_away", "redis")]


def test_check_raises_each_fault_once_and_clears_it_when_gone(database, healthy):
    # Given a late safety job and only the relay that checks
    job_id = stage(database, late=6)
    assert check(database, healthy) == [("safety_overdue", "safety")]
    (alert,) = database.run(list_alerts)
    assert (alert.severity, alert.organization_id) == ("critical", None)
    assert "may still spend" in alert.details["message"]

    # When it is still late, Then there is one alert
    assert check(database, healthy) == [("safety_overdue", "safety")]
    assert len(database.run(lambda session: session.query(Alert).all())) == 1

    # When it is only slightly late, Then the alert stays; when it is done, the alert is cleared
    sql(database, "UPDATE jobs SET due_at = clock_timestamp() - interval '3 s'")
    assert check(database, healthy) == [("safety_overdue", "safety")]
    sql(
        database,
        "UPDATE jobs SET done_at = now(), outcome = 'done', ring_at = NULL WHERE id = :id",
        id=job_id,
    )
    assert check(database, healthy) == []


@pytest.mark.parametrize("kind", ["cleared", "organization"])
def test_only_an_open_alert_of_the_system_lowers_the_limit(database, healthy, kind):
    # Given an alert that is cleared, or that belongs to an organization
    organization_id = make_organization(database) if kind == "organization" else None
    sql(
        database,
        "INSERT INTO alerts (kind, organization_id, subject, severity, details, raised_at)"
        " VALUES ('safety_overdue', :org, 'safety', 'critical', '{}', now())",
        org=organization_id,
    )
    if kind == "cleared":
        sql(database, "UPDATE alerts SET cleared_at = now()")
    before = open_alerts(database)
    # When a safety job is less late than the limit for an alert, Then none is raised
    stage(database, late=3)
    assert check(database, healthy) == before


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


def test_check_is_due_when_the_last_one_lies_ahead(database, healthy):
    # Given a last check an hour ahead, because the clock was then set back
    sql(database, "UPDATE processes SET checked_at = clock_timestamp() + interval '1 hour'")
    # Then a heartbeat returns that a check is due, and one may begin
    assert database.run(Heartbeat(database, "relay").beat)
    assert database.run(lambda session: processes.begin_check(session, healthy))


def test_process_that_has_just_started_checks_nothing(database, add):
    # Other processes may still be starting.
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
