"""Operator actions on jobs: in which states the row allows them."""

from __future__ import annotations

import pytest

from db.jobs import operator as job_operator
from db.jobs.staging import Staged
from tests.db.jobs.support import WAIT, abandon, change, claim, fail, finish, postpone, row, stage


def redrive(database, job_id):
    return database.run(lambda session: job_operator.redrive(session, job_id))


def discard(database, job_id):
    return database.run(lambda session: job_operator.discard(session, job_id))


def run_now(database, job_id):
    return database.run(lambda session: job_operator.run_now(session, job_id))


@pytest.fixture
def notified(shared):
    """The jobs that `after_commit` received."""
    received: list[Staged] = []
    shared.after_commit = received.extend
    yield received
    shared.after_commit = None


def test_buried_job_is_not_notified_until_redriven_with_all_its_attempts(shared, notified):
    job_id = stage(shared)
    fail(shared, claim(shared, job_id), retry=0)
    fail(shared, claim(shared, job_id), retry=None)
    job = row(shared, job_id)
    assert (job.failures, job.ring_at, job.done_at) == (2, None, None)
    assert job.dead_at is not None
    notified.clear()
    # When an operator redrives the job
    assert redrive(shared, job_id) is True
    # Then it is notified at once, can be claimed, and its attempt numbers continue to rise
    assert notified == [Staged(job_id, "work", "safety")]
    again = claim(shared, job_id)
    assert (again.attempt, again.failures) == (3, 0)


def test_redrive_and_discard_refuse_a_job_that_is_open_or_done(shared):
    job_id = stage(shared)
    assert not redrive(shared, job_id)
    assert not discard(shared, job_id)
    finish(shared, claim(shared, job_id))
    assert not redrive(shared, job_id)
    assert not discard(shared, job_id)
    assert row(shared, job_id).outcome == "done"


def test_refused_job_is_redriven_and_not_discarded(shared):
    job_id = stage(shared)
    finish(shared, claim(shared, job_id), outcome="refused", error="NO")
    assert not discard(shared, job_id)
    assert redrive(shared, job_id)
    assert row(shared, job_id).outcome is None


def test_discarded_job_keeps_its_last_error_and_cannot_be_run_again(shared):
    job_id = stage(shared)
    fail(shared, claim(shared, job_id), retry=None)
    assert discard(shared, job_id)
    job = row(shared, job_id)
    assert (job.outcome, job.last_error, job.dead_at) == ("discarded", "boom", None)
    assert not redrive(shared, job_id)
    assert not run_now(shared, job_id)


def test_waiting_job_is_notified_at_once_by_run_now_and_keeps_its_failures(shared, notified):
    job_id = stage(shared)
    fail(shared, claim(shared, job_id), retry=WAIT)
    assert claim(shared, job_id) is None
    notified.clear()
    assert run_now(shared, job_id)
    assert notified == [Staged(job_id, "work", "safety")]
    assert claim(shared, job_id).failures == 1


def test_postponed_or_abandoned_job_can_be_run_now(shared):
    postponed = stage(shared)
    postpone(shared, claim(shared, postponed))
    assert run_now(shared, postponed)
    abandoned = stage(shared)
    claim(shared, abandoned)
    abandon(shared, abandoned)
    assert run_now(shared, abandoned)
    # The abandoned attempt still counts as a failure
    assert claim(shared, abandoned).failures == 1


def test_leased_job_is_not_run_now_a_second_time(shared):
    job_id = stage(shared)
    claimed = claim(shared, job_id)
    change(shared, job_id, "due_at = clock_timestamp() + interval '1 hour'")
    assert not run_now(shared, job_id)
    assert row(shared, job_id).lease_until is not None
    assert finish(shared, claimed)


def test_job_that_is_over_or_dead_is_not_run_now(shared):
    done, dead = stage(shared), stage(shared)
    finish(shared, claim(shared, done))
    fail(shared, claim(shared, dead), retry=None)
    assert not run_now(shared, done)
    assert not run_now(shared, dead)
    assert not run_now(shared, "job_none")
