"""Due safety jobs taken from PostgreSQL, whatever their `ring_at` is."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from db.jobs import due
from db.jobs import lifecycle as jobs
from db.jobs.due import take_due_safety
from tests.db.jobs.support import WAIT, change, claim, fail, finish, row, seconds_until, stage
from tests.db.support import holding


@pytest.fixture
def database(emptied):
    return emptied


def take(database, *names, limit=10):
    return database.run(lambda session: take_due_safety(session, names or ["work"], limit))


def test_due_job_is_taken_although_its_notification_is_far_ahead(database):
    job_id = stage(database)
    change(database, job_id, "rings = 7, ring_at = clock_timestamp() + interval '10 minutes'")
    assert take(database) == [job_id]
    # The relay's schedule is unchanged: the relay continues to notify once Redis is back.
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
    # A failed job that waits for its retry
    fail(database, claim(database, stage(database)))
    stage(database, name="another")
    stage(database, queue="billing")
    finish(database, claim(database, stage(database)))
    fail(database, claim(database, stage(database)), retry=None)
    claim(database, stage(database))
    abandoned = stage(database)
    claim(database, abandoned)
    change(database, abandoned, "lease_until = clock_timestamp()")
    assert take(database) == [abandoned]


@pytest.mark.parametrize("by_index", ["on", "off"])
def test_oldest_due_jobs_are_taken_first(database, by_index):
    ids = [stage(database, name=name) for name in ("work", "other", "work", "work")]
    change(database, ids[3], "due_at = clock_timestamp() - interval '1 hour'")

    def oldest(session):
        # The order must not depend on the plan.
        for way in ("indexscan", "bitmapscan"):
            session.execute(text(f"SET LOCAL enable_{way} = {by_index}"))
        return take_due_safety(session, ["other", "work"], 2)

    assert set(database.run(oldest)) == {ids[3], ids[0]}


def test_job_taken_for_ever_does_not_overflow_its_counter(database):
    job_id = stage(database)
    change(database, job_id, "rings = 1000")
    assert take(database) == [job_id]
    assert row(database, job_id).rings == 1000


def test_job_that_another_worker_runs_is_skipped(database):
    running, free = stage(database), stage(database)
    with holding(database, lambda s: jobs.claim(s, running, worker="a", lease_seconds=0)):
        assert take(database) == [free]


#: Number of open safety jobs in a backlog, as after a provider's or Redis's outage.
BACKLOG = 20_000
_STAGE_MANY = """
    INSERT INTO jobs (id, name, kwargs, queue, correlation_id, due_at, ring_at, attempt)
    SELECT 'job_' || n, CASE WHEN n %% 2 = 0 THEN 'blocked' ELSE 'other' END, '{}', 'safety', 'cor',
        clock_timestamp() + make_interval(secs => CASE WHEN n %% 4 < 2 THEN -n ELSE n %% 1000 END),
        clock_timestamp(), 1
    FROM generate_series(1, %s) AS n
"""


def rows_read(plan):
    """Count the rows of the table that a plan's scans returned or filtered out."""
    own = 0
    if plan.get("Relation Name") == "jobs" and "Scan" in plan["Node Type"]:
        own = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return own + sum(rows_read(part) for part in plan.get("Plans", []))


def indexes_of(plan):
    own = {plan["Index Name"]} if "Index Name" in plan else set()
    return own.union(*(indexes_of(part) for part in plan.get("Plans", [])))


@pytest.mark.parametrize("analyzed", [False, True], ids=["no_statistics", "analyzed"])
def test_taking_reads_only_the_rows_it_takes_when_20000_jobs_are_open(database, owner, analyzed):
    # Given a backlog: half is due, half waits, and half has names that are not requested.
    # (Autovacuum may have analyzed the few rows of earlier tests.)
    owner.execute("ALTER TABLE jobs SET (autovacuum_enabled = off)")
    owner.execute("DELETE FROM pg_statistic WHERE starelid = 'jobs'::regclass")
    owner.execute("UPDATE pg_class SET reltuples = -1 WHERE oid = 'jobs'::regclass")
    owner.execute(_STAGE_MANY, [BACKLOG])
    wanted = stage(database)
    if analyzed:
        owner.execute("ANALYZE jobs")
    for names, limit, found in ((["work", "idle"], 1, [wanted]), (["blocked"], 1, ["job_20000"])):
        # When a job is taken, Then the index read only the due rows of the requested names
        with Session(database.engine) as session:
            explain = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {due.TAKE.text}")
            values = due.begin_take(session, names, limit)
            plan = session.execute(explain, values).scalar_one()[0]["Plan"]
            session.rollback()
        assert rows_read(plan) <= 3, plan
        assert indexes_of(plan) == {"jobs_safety_due", "jobs_pkey"}
        assert take(database, *names, limit=limit) == found
    owner.execute("DELETE FROM jobs")


def test_job_with_a_wait_longer_than_the_maximum_is_taken(database):
    # Given two jobs that are due two hours ahead after the clock was set back; one was tried
    tried, staged_for_later = stage(database), stage(database)
    change(database, tried, "attempt = 1, due_at = clock_timestamp() + interval '2 hours'")
    change(database, staged_for_later, "due_at = clock_timestamp() + interval '2 hours'")
    assert take(database) == [tried]


def test_taking_is_limited_in_time(database):
    def limit(session):
        take_due_safety(session, ["work"])
        return session.execute(text("SHOW statement_timeout")).scalar_one()

    assert database.run(limit) == "2s"
    assert database.run(lambda s: s.execute(text("SHOW statement_timeout")).scalar_one()) == "5s"
