"""Notifications: sent when due, less and less often, and again if Redis lost them."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from db.engine import clock
from db.jobs import lifecycle as jobs
from db.jobs import notifications
from db.models import Job
from tests.db.jobs.support import (
    WAIT,
    change,
    claim,
    fail,
    finish,
    notify_due,
    row,
    seconds_until,
    stage,
)
from tests.db.support import at_once, holding, hurried

#: Every possible wait between two notifications, in seconds.
WAITS = (2, 4, 8, 15, 30, 60, 120, 240, 480, 600)


@pytest.fixture
def database(emptied):
    return emptied


def test_notification_that_is_not_due_is_not_sent(database):
    stage(database, delay=WAIT)
    assert notify_due(database) == []


def test_oldest_notifications_are_sent_first_up_to_the_limit(database):
    ids = [stage(database) for _ in range(4)]
    for seconds, job_id in zip((4, 3, 2, 1), reversed(ids), strict=True):
        change(database, job_id, f"ring_at = clock_timestamp() - interval '{seconds} seconds'")
    assert notify_due(database, 2) == sorted(ids[2:])


def test_concurrent_relays_notify_of_different_jobs(database):
    # Given 60 jobs that are due for notification
    ids = {stage(database) for _ in range(60)}
    database.run(lambda session: session.execute(text("UPDATE jobs SET ring_at = staged_at")))
    # When six relays request ten each at the same moment
    taken = at_once([lambda: notify_due(database, 10)] * 6)
    notified = [job_id for batch in taken for job_id in batch]
    # Then no job was notified twice, and the next relay takes what a collision left over
    assert len(notified) == len(set(notified))
    assert set(notified) | set(notify_due(database)) == ids
    assert {row(database, job_id).rings for job_id in ids} == {1}


def test_relay_skips_jobs_that_another_is_notifying(database):
    ids = [stage(database) for _ in range(2)]
    database.run(lambda session: session.execute(text("UPDATE jobs SET ring_at = staged_at")))
    with holding(database, lambda session: notifications.notify_due(session, 1, urgent=True)):
        (other,) = notify_due(database)
    assert other in ids


def test_safety_job_is_notified_again_after_2_4_8_s_then_ever_later(database):
    job_id = stage(database)
    for expected in (2, 4, 8, 15, 30, 60, 120, 240, 480, 600, 600):
        assert next_notification_seconds(database, job_id, urgent=True) == expected
    assert row(database, job_id).rings == 11


def test_other_jobs_are_notified_again_after_15_s_then_ever_later(database):
    job_id = stage(database, queue="billing")
    for expected in (15, 30, 60, 120, 240, 480, 600, 600):
        assert next_notification_seconds(database, job_id, urgent=False) == expected
    assert row(database, job_id).rings == 8


def next_notification_seconds(database, job_id, *, urgent):
    """Notify of a job now and return the seconds until its next notification."""
    change(database, job_id, "ring_at = clock_timestamp()")

    def notify(session):
        before = clock(session)
        (notified,) = notifications.notify_due(session, 10, urgent=urgent)
        assert notified.job_id == job_id
        after = clock(session)
        ring_at = session.get_one(Job, job_id, populate_existing=True).ring_at
        # The wait counts from an instant between these two.
        return (ring_at - after).total_seconds(), (ring_at - before).total_seconds()

    least, most = database.run(notify)
    return next(seconds for seconds in WAITS if least <= seconds <= most)


def test_job_notified_forever_does_not_overflow_its_counter(database):
    job_id = stage(database)
    change(database, job_id, "rings = 1000, ring_at = clock_timestamp()")
    assert notify_due(database) == [job_id]
    assert row(database, job_id).rings == 1000


def test_failed_notification_is_repeated_in_a_second(database):
    job_id = stage(database)
    change(database, job_id, "ring_at = clock_timestamp()")
    notify_due(database)
    database.run(lambda session: notifications.retry_notifications(session, [job_id]))
    assert row(database, job_id).rings == 0
    assert 0 < seconds_until(database, job_id, "ring_at") <= 1


def test_failed_notification_changes_no_done_or_leased_job(database):
    done, leased = stage(database), stage(database)
    finish(database, claim(database, done))
    claim(database, leased)
    before = row(database, leased).ring_at
    database.run(lambda session: notifications.retry_notifications(session, [done, leased]))
    assert row(database, done).ring_at is None
    assert row(database, leased).ring_at == before


def test_unanswered_notifications_are_repeated_when_redis_was_emptied(database):
    notified, abandoned, waiting, leased, fresh, dead = (stage(database) for _ in range(6))
    change(database, waiting, "due_at = now() + interval '1 h', ring_at = now() + interval '1 h'")
    claim(database, leased)
    claim(database, abandoned)
    fail(database, claim(database, dead), retry=None)
    change(database, notified, "rings = 3, ring_at = clock_timestamp() + interval '10 minutes'")
    change(database, leased, "rings = 1")
    change(
        database,
        abandoned,
        "rings = 1, ring_at = now() + interval '1 minute', lease_until = now()",
    )
    assert (
        database.run(lambda session: notifications.notify_all_again(session, 1_000, urgent=True))
        == 2
    )
    assert sorted(notify_due(database)) == sorted([notified, abandoned])
    for job_id in (waiting, leased):
        assert seconds_until(database, job_id, "ring_at") > 30
    assert row(database, fresh).rings == 0


def test_repeated_notification_does_not_wait_for_a_running_job(database):
    # Given two notified jobs, one of which runs in a transaction longer than the lock timeout
    running, notified = stage(database), stage(database)
    for job_id in (running, notified):
        change(database, job_id, "rings = 2, ring_at = clock_timestamp() + interval '1 hour'")
    with holding(database, lambda s: jobs.claim(s, running, worker="a", lease_seconds=0)):
        # When Redis was emptied meanwhile, and a notification failed
        assert (
            database.run(
                lambda s: (hurried(s), notifications.notify_all_again(s, 1_000, urgent=True))[1]
            )
            == 1
        )
        database.run(lambda s: (hurried(s), notifications.retry_notifications(s, [running])))
    # Then the other job is notified
    assert notify_due(database) == [notified]


def test_notification_is_due_when_it_is_further_ahead_than_any(emptied):
    # Given a retry an hour ahead, as after the clock was set back, and a job staged for later
    retry, later = stage(emptied), stage(emptied, delay=7_200)
    claim(emptied, retry)
    change(
        emptied,
        retry,
        "lease_until = NULL, due_at = clock_timestamp() + interval '1 hour',"
        " ring_at = clock_timestamp() + interval '1 hour'",
    )
    emptied.run(notifications.pull_notifications_back)
    assert notify_due(emptied) == [retry]
    assert seconds_until(emptied, later, "ring_at") > 7_000


def test_job_is_due_when_it_was_staged_at_an_instant_later_than_now(emptied):
    # Given two jobs, one due at once and one in two hours, staged while the clock was an hour
    # ahead, which no process noticed
    at_once, later = stage(emptied), stage(emptied, delay=7_200)
    for job_id in (at_once, later):
        change(
            emptied,
            job_id,
            "staged_at = staged_at + interval '1 hour', due_at = due_at + interval '1 hour',"
            " ring_at = ring_at + interval '1 hour'",
        )
    assert claim(emptied, at_once) is None
    # When the relay looks for due times set too far ahead, Then the first is due and the other
    # waits
    emptied.run(notifications.pull_notifications_back)
    assert notify_due(emptied) == [at_once]
    assert claim(emptied, at_once) is not None
    assert claim(emptied, later) is None
    assert seconds_until(emptied, later, "due_at") > 7_200
