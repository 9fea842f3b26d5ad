"""A job whose message still waits in a long queue is not notified again."""

from __future__ import annotations

import pytest

from db.jobs import notifications
from tests.db.jobs.support import WAIT, change, claim, fail, row, seconds_until, stage


@pytest.fixture
def database(emptied):
    return emptied


@pytest.fixture
def three(database):
    """Three jobs for callbacks that are due for notification, the oldest first."""
    jobs = sorted(stage(database, queue="callbacks") for _ in range(3))
    for job_id in jobs:
        make_due(database, job_id)
    return jobs


def make_due(database, job_id):
    change(database, job_id, "ring_at = clock_timestamp()")


def notified(database, head, queue="callbacks"):
    staged = database.run(
        lambda session: notifications.notify_due(session, 10, urgent=False, heads={queue: head})
    )
    return sorted(one.job_id for one in staged)


def test_job_from_the_head_on_is_not_notified_again(database, three):
    first, *waiting = three
    assert notified(database, waiting[0]) == [first]
    assert [row(database, job_id).rings for job_id in waiting] == [1, 1]
    for job_id in waiting:
        assert 0 < seconds_until(database, job_id, "ring_at") <= 2


def test_job_that_the_head_has_passed_is_notified_again(database, three):
    first, second, third = three
    assert notified(database, third) == [first, second]
    make_due(database, third)
    # Its message was lost, because that of a younger job is the head.
    assert notified(database, third + "0") == [third]


def test_job_of_another_queue_is_notified_again(database, three):
    assert notified(database, three[0], queue="billing") == three


def test_waiting_does_not_count_as_a_notification(database, three):
    # Given a job that a worker claims in one transaction with its work
    _, _, third = three
    for _ in range(10):
        make_due(database, third)
        notified(database, three[0])
    claimed = claim(database, third, lease=0)
    assert (claimed.rings, claimed.may_kill_workers) == (1, False)


def test_wait_for_the_next_check_doubles_up_to_two_minutes(database, three):
    for age, expected in ((30, 30), (60, 60), (600, 120)):
        aged = f"due_at = clock_timestamp() - interval '{age} seconds'"
        change(database, three[1], f"{aged}, ring_at = clock_timestamp()")
        notified(database, three[0])
        assert round(seconds_until(database, three[1], "ring_at"), -1) == expected


def test_job_that_no_process_notified_yet_is_notified(database, three):
    # Given a retry and a job staged for later, both due now, behind the head
    retry = stage(database, queue="callbacks")
    later = stage(database, queue="callbacks", delay=WAIT)
    fail(database, claim(database, retry))
    change(database, retry, "due_at = staged_at")
    for job_id in (retry, later):
        make_due(database, job_id)
    assert notified(database, three[0]) == sorted([retry, later])


def test_waiting_job_is_notified_again_when_redis_was_emptied(database, three):
    notified(database, three[0])
    database.run(lambda session: notifications.notify_all_again(session, 10, urgent=False))
    staged = database.run(lambda session: notifications.notify_due(session, 10, urgent=False))
    assert sorted(one.job_id for one in staged) == three
