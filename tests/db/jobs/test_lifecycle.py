"""A job's row from staging to its end, and the workers that may not change it."""

from __future__ import annotations

import pytest

from db.jobs import lifecycle as jobs
from db.jobs import staging
from db.jobs.staging import Cause
from db.models import Job, JobAttempt
from tests.db.jobs.support import (
    WAIT,
    abandon,
    attempts,
    change,
    claim,
    fail,
    finish,
    postpone,
    row,
    seconds_until,
    stage,
)
from tests.db.support import at_once, holding


@pytest.fixture
def database(emptied):
    return emptied


def test_staged_job_keeps_its_arguments_and_its_cause(database):
    # Given a transaction with a cause
    def work(session):
        staging.set_cause(session, Cause("evt_1", "cor_1"))
        return staging.insert(
            session, name="work", queue="billing", kwargs={"a": "1"}, organization_id="org_1"
        )

    job = row(database, database.run(work))
    assert (job.name, job.queue, job.kwargs) == ("work", "billing", {"a": "1"})
    assert (job.organization_id, job.cause, job.correlation_id) == ("org_1", "evt_1", "cor_1")
    assert (job.attempt, job.failures, job.rings, job.done_at) == (0, 0, 0, None)


def test_job_without_a_cause_gets_a_correlation_id_of_its_own(database):
    one, other = (row(database, stage(database)).correlation_id for _ in range(2))
    assert one.startswith("cor_")
    assert one != other


def test_job_that_is_rolled_back_does_not_exist(database):
    class Bug(Exception):
        pass

    made = []

    def work(session):
        made.append(
            staging.insert(session, name="x", queue="safety", kwargs={}, organization_id=None)
        )
        raise Bug

    with pytest.raises(Bug):
        database.run(work)
    assert database.run(lambda session: session.get(Job, made[0])) is None


def test_new_job_is_notified_soon_and_a_delayed_one_when_it_is_due(database):
    assert 0 < seconds_until(database, stage(database), "ring_at") <= 2
    later = stage(database, delay=100)
    assert 50 < seconds_until(database, later, "ring_at") <= 100
    assert 50 < seconds_until(database, later, "due_at") <= 100


def test_job_is_claimed_failed_postponed_and_done(database):
    job_id = stage(database)
    # When the job fails once, is postponed once and is then done
    assert fail(database, claim(database, job_id), retry=0)
    second = claim(database, job_id)
    assert postpone(database, second)
    change(database, job_id, "due_at = clock_timestamp()")
    third = claim(database, job_id)
    assert (third.attempt, third.failures) == (3, 1)
    assert finish(database, third)
    # Then the row and its attempts show it
    job = row(database, job_id)
    assert (job.outcome, job.attempt, job.failures, job.postponements) == ("done", 3, 1, 1)
    assert (job.ring_at, job.lease_until, job.dead_at, job.last_error) == (None, None, None, None)
    assert attempts(database, job_id) == [
        (1, "w", "failed", "boom"),
        (2, "w", "postponed", "not yet"),
        (3, "w", "done", None),
    ]


@pytest.mark.parametrize("lease", [0, WAIT])
def test_claim_returns_the_job_and_is_visible_to_others_only_when_leased(database, lease):
    job_id = stage(database, kwargs={"a": "1"})
    claimed = claim(database, job_id, lease=lease)
    assert (claimed.job_id, claimed.name, claimed.kwargs) == (job_id, "work", {"a": "1"})
    assert (claimed.attempt, claimed.committed) == (1, lease > 0)
    assert row(database, job_id).attempt == (1 if lease else 0)
    assert attempts(database, job_id) == ([(1, "w", None, None)] if lease else [])


def test_leased_claim_counts_the_attempt_and_notifies_at_the_leases_end(database):
    job_id = stage(database)
    claim(database, job_id, worker="first", lease=WAIT)
    job = row(database, job_id)
    assert (job.attempt, job.failures, job.worker) == (1, 0, "first")
    assert job.ring_at == job.lease_until
    assert 30 < seconds_until(database, job_id, "lease_until") <= WAIT


def test_claim_refuses_done_dead_leased_not_due_and_unknown_jobs(database):
    done, dead, leased = (stage(database) for _ in range(3))
    finish(database, claim(database, done))
    fail(database, claim(database, dead), retry=None)
    claim(database, leased)
    not_due = stage(database, delay=WAIT)
    for job_id in (done, dead, leased, not_due, "job_unknown"):
        assert claim(database, job_id, lease=0) is None
        assert claim(database, job_id) is None


def test_claim_skips_a_locked_row_without_waiting(database):
    job_id = stage(database)
    with holding(database, lambda s: jobs.claim(s, job_id, worker="a", lease_seconds=0)):
        assert claim(database, job_id, worker="b") is None
    assert claim(database, job_id, worker="b") is not None


def test_one_of_many_concurrent_claims_gets_the_job(database):
    job_id = stage(database)
    found = at_once([lambda n=n: claim(database, job_id, worker=str(n)) for n in range(16)])
    assert sum(one is not None for one in found) == 1
    assert row(database, job_id).attempt == 1


def test_abandoned_lease_counts_as_a_failure_of_the_policy(database):
    job_id = stage(database)
    claim(database, job_id, worker="dies")
    abandon(database, job_id)
    second = claim(database, job_id, worker="b")
    assert (second.attempt, second.failures) == (2, 1)
    assert row(database, job_id).failures == 1


def test_abandoned_lease_is_counted_when_the_next_run_is_postponed(database):
    job_id = stage(database)
    claim(database, job_id, worker="dies")
    abandon(database, job_id)
    # When the next claim has no lease and its attempt is postponed
    postpone(database, claim(database, job_id, lease=0))
    assert row(database, job_id).failures == 1


def test_attempt_cannot_end_or_change_the_job_after_it_was_taken_over(database):
    # Given a worker that was presumed dead, and another that has claimed the job since
    job_id = stage(database)
    outdated = claim(database, job_id, worker="outdated")
    abandon(database, job_id)
    newest = claim(database, job_id, worker="newest")
    before = row(database, job_id)
    history = attempts(database, job_id)
    # When the outdated worker continues
    assert finish(database, outdated) is False
    assert fail(database, outdated) is False
    assert fail(database, outdated, retry=None) is False
    assert postpone(database, outdated) is False
    assert database.run(lambda session: jobs.lock_claimed(session, outdated)) is False
    # Then nothing changed, and the newest attempt can still end
    after = row(database, job_id)
    for column in Job.__table__.columns.keys():  # noqa: SIM118
        assert getattr(after, column) == getattr(before, column), column
    assert attempts(database, job_id) == history
    assert database.run(lambda session: jobs.lock_claimed(session, newest)) is True
    assert finish(database, newest) is True


def test_uncommitted_claim_cannot_end_a_job_that_was_claimed_since(database):
    job_id = stage(database)
    outdated = claim(database, job_id, lease=0)
    claim(database, job_id, worker="newest")
    assert finish(database, outdated) is False
    assert row(database, job_id).done_at is None


@pytest.mark.parametrize("end", ["done", "dead"])
def test_ended_job_cannot_end_again(database, end):
    job_id = stage(database)
    claimed = claim(database, job_id)
    assert finish(database, claimed) if end == "done" else fail(database, claimed, retry=None)
    before = row(database, job_id)
    assert not finish(database, claimed, outcome="refused")
    assert not fail(database, claimed)
    assert not postpone(database, claimed)
    assert not database.run(lambda session: jobs.lock_claimed(session, claimed))
    after = row(database, job_id)
    assert (after.outcome, after.done_at, after.dead_at) == (
        before.outcome,
        before.done_at,
        before.dead_at,
    )


def test_locked_job_is_not_claimed_until_the_transaction_ends(database):
    job_id = stage(database)
    claimed = claim(database, job_id)
    abandon(database, job_id)
    with holding(database, lambda session: jobs.lock_claimed(session, claimed)):
        assert claim(database, job_id, worker="b") is None


def test_refusal_ends_the_job_with_its_reason(database):
    job_id = stage(database)
    assert finish(database, claim(database, job_id), outcome="refused", error="NO: because")
    job = row(database, job_id)
    assert (job.outcome, job.last_error, job.ring_at) == ("refused", "NO: because", None)
    assert attempts(database, job_id) == [(1, "w", "refused", "NO: because")]


def test_failure_waits_for_its_retry_and_uses_one_of_the_policy(database):
    job_id = stage(database)
    assert fail(database, claim(database, job_id), retry=WAIT)
    job = row(database, job_id)
    assert (job.failures, job.last_error, job.lease_until) == (1, "boom", None)
    assert 30 < seconds_until(database, job_id, "due_at") <= WAIT
    assert 30 < seconds_until(database, job_id, "ring_at") <= WAIT


def test_postponement_uses_no_failure(database):
    job_id = stage(database)
    assert postpone(database, claim(database, job_id))
    job = row(database, job_id)
    assert (job.failures, job.postponements, job.lease_until) == (0, 1, None)
    assert 30 < seconds_until(database, job_id, "due_at") <= WAIT


def test_error_is_stored_without_nul_and_cut_to_its_limit(database):
    job_id = stage(database)
    claimed = claim(database, job_id)
    database.run(
        lambda session: jobs.fail(
            session,
            claimed,
            worker="w",
            error="nul\x00" + "x" * 9_000,
            traceback="y" * 90_000 + "end",
            retry_seconds=WAIT,
        )
    )
    assert row(database, job_id).last_error.startswith("nulx")
    kept = database.run(lambda session: session.get_one(JobAttempt, (job_id, 1)))
    assert len(kept.error) <= 2_000
    assert len(kept.traceback) == 20_000
    assert kept.traceback.endswith("end")
