"""Retention: jobs and event bodies go by age, in bounded batches.

Dead jobs, open jobs and unhandled events are never pruned.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from db.jobs import operator as job_operator
from db.jobs import retention
from db.models import InboxEvent, Job, JobAttempt
from tests.db.jobs.support import change, claim, fail, finish, row, stage
from tests.db.support import at_once, holding


def prune(database, *, after=timedelta(hours=1), limit=100):
    """Prune the jobs that will be older than `after` from now."""
    before = database.now() + after
    return database.run(lambda s: retention.prune_jobs(s, over_before=before, limit=limit))


def prune_bodies(database, *, after=timedelta(hours=1), limit=100):
    before = database.now() + after
    return database.run(lambda s: retention.prune_bodies(s, handled_before=before, limit=limit))


def left(database):
    return database.run(lambda s: sorted(one.id for one in s.query(Job)))


def done(database, outcome="done"):
    job_id = stage(database)
    finish(database, claim(database, job_id), outcome=outcome, error="why")
    return job_id


def event(database, name, *, handled=True):
    database.run(
        lambda s: s.execute(
            text(
                "INSERT INTO inbox (id, source, external_id, event_type, body, body_sha256,"
                " correlation_id, received_at, handled_at) VALUES (:id, 'paypal', :id, 'T', 'body',"
                " sha256('body'), 'c', clock_timestamp(),"
                " CASE WHEN :handled THEN clock_timestamp() END)"
            ),
            {"id": name, "handled": handled},
        )
    )
    return name


def bodies(database):
    return database.run(lambda s: {one.id: one.body for one in s.query(InboxEvent)})


def test_old_finished_jobs_are_deleted_with_their_attempts(emptied):
    for outcome in ("done", "refused"):
        done(emptied, outcome)
    discarded = stage(emptied)
    fail(emptied, claim(emptied, discarded), retry=None)
    emptied.run(lambda s: job_operator.discard(s, discarded))

    assert prune(emptied) == 3
    assert left(emptied) == []
    assert emptied.run(lambda s: s.query(JobAttempt).count()) == 0


def test_dead_or_open_job_is_kept_however_old(emptied):
    waiting, running, dead, failed = (stage(emptied) for _ in range(4))
    claim(emptied, running)
    fail(emptied, claim(emptied, dead), retry=None)
    fail(emptied, claim(emptied, failed), retry=60)

    assert prune(emptied, after=timedelta(days=9_000)) == 0
    assert left(emptied) == sorted([waiting, running, dead, failed])
    assert emptied.run(lambda s: s.query(JobAttempt).count()) == 3


def test_job_that_ended_later_is_kept(emptied):
    # Given a job that was staged long ago and has just ended
    old, young = done(emptied), done(emptied)
    change(emptied, old, "done_at = clock_timestamp() - interval '2 hours'")

    assert prune(emptied, after=timedelta(hours=-1)) == 0  # its ID is newer than the limit
    before = emptied.now()
    change(emptied, young, "done_at = clock_timestamp() + interval '3 hours'")
    assert prune(emptied, after=timedelta(hours=2)) == 1
    assert left(emptied) == [young]
    assert row(emptied, young).done_at > before


def test_batch_is_bounded_and_takes_the_oldest_first(emptied):
    ids = [done(emptied) for _ in range(5)]
    assert prune(emptied, limit=2) == 2
    assert left(emptied) == sorted(ids)[2:]
    assert prune(emptied, limit=2) == 2
    assert prune(emptied, limit=2) == 1


def test_pruning_skips_locked_jobs_and_takes_the_rest(emptied):
    # Given a refused job that an operator is redriving
    refused, over = done(emptied, "refused"), done(emptied)
    with holding(emptied, lambda s: job_operator.redrive(s, refused)):
        # When old jobs are pruned, Then the locked job is skipped
        assert prune(emptied) == 1
    assert left(emptied) == [refused]
    assert over not in left(emptied)


def test_concurrent_pruning_deletes_each_row_once(emptied):
    for _ in range(40):
        done(emptied)
    before = emptied.now() + timedelta(hours=1)

    def one():
        return emptied.run(lambda s: retention.prune_jobs(s, over_before=before, limit=10))

    counts = []
    while left(emptied):
        counts += at_once([one] * 4)
    assert sum(counts) == 40


def test_handled_events_body_is_deleted_and_its_row_stays(emptied):
    event(emptied, "evt_a")
    event(emptied, "evt_b", handled=False)
    # An event's ID begins with its creation time; these IDs are newer than the limit
    assert prune_bodies(emptied) == 0
    first, second = event(emptied, "evt_00a"), event(emptied, "evt_00b", handled=False)

    assert prune_bodies(emptied) == 1
    assert bodies(emptied)[first] is None
    assert bodies(emptied)[second] == b"body"
    assert prune_bodies(emptied) == 0


def test_body_is_kept_until_its_retention_ends(emptied):
    kept = event(emptied, "evt_00a")
    assert prune_bodies(emptied, after=timedelta(hours=-1)) == 0
    assert bodies(emptied)[kept] == b"body"


def test_bodies_are_deleted_in_bounded_batches(emptied):
    for number in range(3):
        event(emptied, f"evt_00{number}")
    assert [prune_bodies(emptied, limit=2) for _ in range(3)] == [2, 1, 0]


def test_database_refuses_to_remove_the_body_of_an_unhandled_event(emptied):
    name = event(emptied, "evt_00a", handled=False)
    with pytest.raises(Exception, match="inbox_check"):
        emptied.run(
            lambda s: s.execute(text("UPDATE inbox SET body = NULL WHERE id = :id"), {"id": name})
        )
