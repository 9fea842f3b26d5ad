"""Operator actions on jobs: each recorded with name and reason, or not done."""

from __future__ import annotations

import pytest

from base.operators import Operator
from db.models import OperatorAction
from domain.jobs.operator import (
    JobActImpossible,
    act_on_many,
    discard_manually,
    redrive_manually,
    run_now_manually,
)
from tests.db.jobs.support import claim, fail, finish, postpone, row, stage
from tests.domain.support import T0

ACTS = {
    "job.redrive": redrive_manually,
    "job.discard": discard_manually,
    "job.run_now": run_now_manually,
}


def made_for(database, name):
    """Make a job that allows this action."""
    job_id = stage(database)
    if name == "job.run_now":
        postpone(database, claim(database, job_id))
    else:
        fail(database, claim(database, job_id), retry=None)
    return job_id


def do(database, name, job_id):
    return database.run(lambda s: ACTS[name](s, job_id, operator=Operator("ann", "mended"), now=T0))


def written(database, job_id):
    rows = database.run(lambda s: s.query(OperatorAction).filter_by(subject=job_id).all())
    return [(one.act, one.operator, one.why, one.acted_at) for one in rows]


@pytest.mark.parametrize("name", ACTS)
def test_action_is_done_and_recorded_in_one_commit(shared, name):
    job_id = made_for(shared, name)
    do(shared, name, job_id)
    assert written(shared, job_id) == [(name, "ann", "mended", T0)]


@pytest.mark.parametrize("name", ACTS)
def test_impossible_action_is_refused_and_not_recorded(shared, name):
    job_id = stage(shared)
    finish(shared, claim(shared, job_id))
    with pytest.raises(JobActImpossible, match=job_id):
        do(shared, name, job_id)
    assert written(shared, job_id) == []


def test_action_on_many_jobs_is_done_on_those_that_allow_it(shared):
    # Given two dead jobs, and one that was redriven meanwhile
    dead = [made_for(shared, "job.redrive") for _ in range(2)]
    gone = made_for(shared, "job.redrive")
    do(shared, "job.redrive", gone)

    # When all three are redriven in one action
    count = shared.run(
        lambda s: act_on_many(
            s, redrive_manually, [*dead, gone], operator=Operator("bob", "all"), now=T0
        )
    )

    # Then two are redriven, and an action is recorded for each
    assert count == 2
    assert [written(shared, one)[-1][1] for one in dead] == ["bob", "bob"]
    assert len(written(shared, gone)) == 1
    assert {row(shared, one).dead_at for one in dead} == {None}


def test_recorded_action_cannot_be_changed_by_the_serving_role(shared):
    job_id = made_for(shared, "job.run_now")
    do(shared, "job.run_now", job_id)
    for statement in ("UPDATE operator_acts SET why = 'x'", "DELETE FROM operator_acts"):
        with pytest.raises(Exception, match="permission denied"):
            shared.run(lambda s, one=statement: s.connection().exec_driver_sql(one))
