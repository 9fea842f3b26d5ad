"""Due safety jobs, taken from PostgreSQL: by due_at and lease, whatever `ring_at` says."""

from __future__ import annotations

import pytest

from db import jobs
from db.due import take_due_safety
from tests.db.jobs_by_hand import WAIT, change, claim, fail, finish, row, seconds_until, stage
from tests.db.support import holding


@pytest.fixture
def database(emptied):
    return emptied


def take(database, *names, limit=10):
    return database.run(lambda session: take_due_safety(session, names or ["work"], limit))


def test_due_job_is_taken_although_its_bell_is_far_ahead(database):
    job_id = stage(database)
    change(database, job_id, "rings = 7, ring_at = clock_timestamp() + interval '10 minutes'")
    assert take(database) == [job_id]
    # The relay's own time stays: it goes on notifying once Redis is back.
    assert seconds_until(database, job_id, "ring_at") > 500


def test_taking_counts_as_a_notification_until_an_attempt_ends(database):
    job_id = stage(database)
    for taken in range(1, 4):
        assert take(database) == [job_id]
        assert row(database, job_id).rings == taken
    fail(database, claim(database, job_id, lease=0))
    assert row(database, job_id).rings == 0


def test_only_due_free_safety_jobs_of_the_names_are_taken(database):
    stage(database, delay=WAIT)
    stage(database, name="another")
    stage(database, queue="billing")
    finish(database, claim(database, stage(database)))
    fail(database, claim(database, stage(database)), retry=None)
    claim(database, stage(database))
    abandoned = stage(database)
    claim(database, abandoned)
    change(database, abandoned, "lease_until = clock_timestamp()")
    assert take(database) == [abandoned]


def test_oldest_due_jobs_are_taken_first(database):
    ids = [stage(database) for _ in range(3)]
    change(database, ids[2], "due_at = clock_timestamp() - interval '1 hour'")
    assert set(take(database, limit=2)) == {ids[2], ids[0]}


def test_job_that_another_worker_runs_is_passed_by(database):
    running, free = stage(database), stage(database)
    with holding(database, lambda s: jobs.claim(s, running, worker="a", lease_seconds=0)):
        assert take(database) == [free]
