"""After a step of the clock each wait is moved back; newer instants stay."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from db.clock_shift import shift_waits
from db.jobs import notifications
from tests.db.jobs.support import change, row, seconds_until, stage
from tests.db.support import holding, wait_for_waiters
from tests.support.world import make_organization

#: The size of the step, in seconds.
HOUR = 3_600.0


def shift(database, within=1.0):
    """Settle a step of an hour back and return the counts of moved rows."""
    now = database.now()
    return database.run(lambda s: shift_waits(s, seconds=HOUR, within_seconds=within, now=now))


def sql(database, statement, **values):
    database.run(lambda session: session.execute(text(statement), values))


def left(database, table, column):
    """Return the seconds until an instant in a table's only row."""
    query = f"SELECT extract(epoch FROM {column} - clock_timestamp()) FROM {table}"
    return float(database.run(lambda s: s.execute(text(query)).scalar_one()))


def near(seconds):
    return pytest.approx(seconds, abs=30)


def old_job(database):
    """Stage a job a day before the step and return its ID."""
    job_id = stage(database)
    change(
        database,
        job_id,
        "staged_at = clock_timestamp() - interval '1 day', ring_at = clock_timestamp()",
    )
    return job_id


def test_only_instants_ahead_of_the_clock_are_moved(database):
    # Given a job that waits for nothing, and a job with only its lease in the future
    idle, leased = old_job(database), old_job(database)
    change(database, leased, "lease_until = clock_timestamp() + interval '1 hour 20 s'")
    before = row(database, leased)
    # When waits are moved, Then only the lease is moved, and past instants stay
    assert shift(database)["jobs"] == 1
    after = row(database, leased)
    assert seconds_until(database, leased, "lease_until") == near(20)
    assert (after.due_at, after.ring_at) == (before.due_at, before.ring_at)
    assert row(database, idle).due_at < database.now()


def test_job_that_is_locked_is_moved_when_the_lock_is_free(database, urls):
    waiting, running = old_job(database), old_job(database)
    for job_id in (waiting, running):
        change(database, job_id, "due_at = clock_timestamp() + interval '1 hour 20 s'")
    with ThreadPoolExecutor() as pool:
        # Given a transaction that has changed one job and is not over
        with holding(database, lambda s: notifications.retry_notifications(s, [running])):
            moved = pool.submit(shift, database)
            assert wait_for_waiters(urls.owner_url, 1)
        # When it ends, Then both jobs are moved
        assert moved.result()["jobs"] == 2
    for job_id in (waiting, running):
        assert seconds_until(database, job_id, "due_at") == near(20)


def test_moving_may_take_longer_than_other_statements(database):
    def limit(session):
        shift_waits(session, seconds=HOUR, within_seconds=1, now=database.now())
        return session.execute(text("SHOW statement_timeout")).scalar_one()

    assert database.run(limit) == "1min"


@pytest.mark.parametrize(("ahead", "after"), [(HOUR + 20, 20), (30, 30)])
def test_lease_of_a_subaccount_is_moved_when_it_is_longer_than_any(database, ahead, after):
    # Given a lease, and a period of uncertainty that is over
    sql(
        database,
        "INSERT INTO brands (id, organization_id, name, twilio_subaccount_sid, created_at,"
        " twilio_lease_token, twilio_lease_until, twilio_unsure_until) VALUES ('b1', :org, 'b',"
        " :sid, clock_timestamp(), 'x', clock_timestamp() + make_interval(secs => :ahead),"
        " clock_timestamp() - interval '50 s')",
        org=make_organization(database),
        sid="AC" + "0" * 32,
        ahead=ahead,
    )
    shift(database)
    assert left(database, "brands", "twilio_lease_until") == near(after)
    assert left(database, "brands", "twilio_unsure_until") == near(-50)


def test_doubt_that_began_after_the_step_ends_no_earlier_than_now(database):
    sql(
        database,
        "INSERT INTO brands (id, organization_id, name, twilio_subaccount_sid, created_at,"
        " twilio_unsure_until) VALUES ('b1', :org, 'b', :sid, clock_timestamp(),"
        " clock_timestamp() + interval '100 s')",
        org=make_organization(database),
        sid="AC" + "0" * 32,
    )
    shift(database)
    assert left(database, "brands", "twilio_unsure_until") == near(0)


@pytest.mark.parametrize(("ahead", "after"), [(HOUR + 15, 15), (20, 20), (-20, -20)])
def test_lease_of_a_subscription_is_moved_when_it_is_longer_than_any(database, ahead, after):
    sql(
        database,
        "INSERT INTO subscriptions (id, organization_id, provider, external_id, status, created_at,"
        " look_token, look_lease_until) VALUES ('s1', :org, 'paypal', 'I-1', 'active',"
        " clock_timestamp(), 'x', clock_timestamp() + make_interval(secs => :ahead))",
        org=make_organization(database),
        ahead=ahead,
    )
    shift(database)
    assert left(database, "subscriptions", "look_lease_until") == near(after)


@pytest.mark.parametrize(("ahead", "after"), [(HOUR + 200, 200), (200, 200)])
def test_schedule_is_moved_when_it_is_further_ahead_than_its_interval(database, ahead, after):
    sql(
        database,
        "INSERT INTO schedules (name, every_seconds, next_at, declared_at) VALUES ('s', 300,"
        " clock_timestamp() + make_interval(secs => :ahead), clock_timestamp())",
        ahead=ahead,
    )
    shift(database)
    assert left(database, "schedules", "next_at") == near(after)
