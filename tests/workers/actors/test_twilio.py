"""Subaccounts reach their desired state, in any order of jobs and answers."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace

import pytest
from dramatiq.middleware import TimeLimitExceeded
from dramatiq.middleware.threading import raise_thread_exception

from base.enums import TwilioStatus
from base.facts import SubaccountFacts
from domain import organizations
from domain.jobs.types import CONVERGE_TWILIO, JOB_TYPES
from domain.subaccounts import record_state, take_lease
from providers.http import client as http
from tests.support.world import make_organization
from tests.workers.scenes import (
    another_thread,
    asked,
    clear_faults,
    execute_sql,
    held,
    newest_attempt,
    release,
    run,
    set_leases_over,
    set_unsure_over,
    want,
)

SUSPEND = {"method": "POST", "form": {"Status": "suspended"}}


@pytest.fixture
def brand(world):
    """A brand whose subaccount is active, as desired."""
    organization_id = make_organization(world.database)
    sid = world.sandbox.control("POST", "/twilio/subaccounts", {})["sid"]
    made = world.do(
        lambda session, now: organizations.create_brand(
            session, organization_id, name="b", twilio_subaccount_sid=sid, now=now
        )
    )
    execute_sql(world, "UPDATE brands SET twilio_desired = 'active'")
    execute_sql(world, "DELETE FROM jobs")
    world.stage("converge_twilio", brand_id=made)
    world.run_due()
    return world.brands(organization_id)[0]


def now_is(world, brand):
    return world.brands(brand.organization_id)[0]


@pytest.mark.parametrize("status", ["suspended", "active"])
def test_subaccount_is_set_once_and_read_back(world, brand, status):
    # Given a subaccount in the other state
    sid = brand.twilio_subaccount_sid
    other = {"suspended": "active", "active": "suspended"}[status]
    world.sandbox.control("POST", f"/twilio/subaccounts/{sid}", {"status": other})
    gets = asked(world, sid, "GET")

    # When its desired state changes
    assert run(world, want(world, brand.id, status)) == "done"

    # Then Twilio has the desired state, and it was read before and after the change
    assert world.twilio_status(sid) == status
    assert (asked(world, sid, "POST"), asked(world, sid, "GET") - gets) == (1, 2)
    row = now_is(world, brand)
    assert (row.twilio_actual, row.twilio_converged) == (status, row.twilio_generation)
    assert (row.twilio_lease_token, row.twilio_unsure_until) == (None, None)


def living(world, brand, count: int) -> list[str]:
    return [
        world.sandbox.control("POST", "/twilio/calls", {"sid": brand.twilio_subaccount_sid})["sid"]
        for _ in range(count)
    ]


def test_suspension_ends_the_live_calls_of_the_subaccount(world, brand):
    # Given three calls in progress, which a suspension alone would not end
    living(world, brand, 3)
    # When the subaccount is suspended
    assert run(world, want(world, brand.id, "suspended")) == "done"
    # Then none of them is live
    assert world.providers.twilio.live_calls(brand.twilio_subaccount_sid) == []


def test_suspension_does_not_wait_for_calls_that_cannot_be_listed(world, brand):
    # Given a list of calls that Twilio does not return
    living(world, brand, 1)
    sid = brand.twilio_subaccount_sid
    fault = world.sandbox.fault(
        "twilio", "status", status=503, match={"path_contains": "/Calls.json"}
    )
    # When the subaccount is to be suspended, Then it is suspended, and the job is retried for the
    # calls
    job_id = want(world, brand.id, "suspended")
    assert run(world, job_id) == "failed"
    assert world.twilio_status(sid) == "suspended"
    world.sandbox.control("DELETE", f"/faults/{fault}")
    world.due_now()
    assert run(world, job_id) == "done"
    assert world.providers.twilio.live_calls(sid) == []


def test_activation_does_not_end_calls(world, brand):
    living(world, brand, 1)
    assert run(world, want(world, brand.id, "active")) == "done"
    assert len(world.providers.twilio.live_calls(brand.twilio_subaccount_sid)) == 1


def test_replay_sends_no_request_to_twilio(world, brand):
    # Given a suspended subaccount
    run(world, want(world, brand.id, "suspended"))
    assert asked(world, brand.twilio_subaccount_sid, "POST") == 1

    # When the job is notified again, and another job desires the same state
    first = want(world, brand.id, "suspended")
    assert [run(world, first), run(world, first)] == ["done", "taken"]
    assert run(world, want(world, brand.id, "suspended")) == "done"

    # Then no further change was requested
    assert asked(world, brand.twilio_subaccount_sid, "POST") == 1


def test_late_job_of_an_old_suspension_sets_the_desired_state(world, brand):
    # Given a suspension whose job is late, and a later reactivation
    old = want(world, brand.id, "suspended")
    new = want(world, brand.id, "active")

    # When the newer job runs first and the old one last
    assert [run(world, new), run(world, old)] == ["done", "done"]

    # Then the subaccount never left active
    assert asked(world, brand.twilio_subaccount_sid, "POST") == 0
    assert now_is(world, brand).twilio_actual == "active"


def test_absent_subaccount_is_alerted_and_not_retried(world, brand):
    sid = "AC" + secrets.token_hex(16)
    execute_sql(world, "UPDATE brands SET twilio_subaccount_sid = %s", sid)

    assert run(world, want(world, brand.id, "suspended")) == "refused"

    row = now_is(world, brand)
    assert (row.twilio_actual, row.twilio_problem) == ("absent", "SUBACCOUNT_MISSING")
    _nothing_is_left_to_do(world, brand, sid)


def test_closed_subaccount_is_alerted_and_not_retried(world, brand):
    sid = brand.twilio_subaccount_sid
    world.sandbox.control("POST", f"/twilio/subaccounts/{sid}", {"status": "closed"})

    assert run(world, want(world, brand.id, "suspended")) == "refused"

    row = now_is(world, brand)
    assert (row.twilio_actual, row.twilio_problem) == ("closed", "SUBACCOUNT_CLOSED")
    _nothing_is_left_to_do(world, brand, sid)


def _nothing_is_left_to_do(world, brand, sid):
    row = now_is(world, brand)
    assert (row.twilio_lease_token, row.twilio_lease_until) == (None, None)
    assert asked(world, sid, "POST") == 0
    world.due_now()
    assert world.run_due() == []


def test_subaccount_suspended_by_twilio_is_alerted_until_restored(world, brand):
    # Given a subaccount that Twilio itself suspended
    path = f"/twilio/subaccounts/{brand.twilio_subaccount_sid}"
    world.sandbox.control("POST", path, {"suspended_by_twilio": True})

    # When its desired state is active
    assert run(world, want(world, brand.id, "active")) == "refused"

    # Then the problem is recorded with Twilio's refusal (21478), and not retried
    row = now_is(world, brand)
    assert (row.twilio_actual, row.twilio_problem) == ("active", "SUSPENDED_BY_TWILIO")
    assert row.twilio_lease_token is None
    world.due_now()
    assert world.run_due() == []

    # And once Twilio has lifted its suspension, the next job clears the problem
    world.sandbox.control("POST", path, {"suspended_by_twilio": False})
    assert run(world, want(world, brand.id, "active")) == "done"
    assert now_is(world, brand).twilio_problem is None


def test_brand_without_a_subaccount_is_refused(world):
    assert run(world, world.stage("converge_twilio", brand_id="brd_none")) == "refused"


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("status", {"status": 500}),
        ("status", {"status": 429, "headers": {"Retry-After": "60"}}),
        ("drop", {}),
    ],
)
def test_job_runs_later_when_twilio_is_away(world, brand, kind, more):
    # Given a Twilio that returns no useful answer
    world.sandbox.fault("twilio", kind, **more)

    # When a subaccount is to be suspended
    job_id = want(world, brand.id, "suspended")
    assert run(world, job_id) == "failed"

    # Then the job waits, as long as Twilio requested, and the lease is free
    job = world.job(job_id)
    assert job.ring_at is not None and job.dead_at is None
    if "headers" in more:
        assert (job.due_at - world.database.now()).total_seconds() > 30
    assert now_is(world, brand).twilio_lease_token is None

    # And when Twilio answers again, the job is done
    clear_faults(world)
    world.due_now()
    assert run(world, job_id) == "done"
    assert world.twilio_status(brand.twilio_subaccount_sid) == "suspended"


@pytest.mark.parametrize("kind", ["act_then_drop", "act_then_timeout"])
def test_answer_lost_after_twilio_acted_is_read_back_and_never_resent(
    world, brand, kind, monkeypatch
):
    # Given that the answer to the suspension is lost
    monkeypatch.setattr(http, "READ_SECONDS", 0.4)
    world.sandbox.fault("twilio", kind, match=SUSPEND, times=1, seconds=1.0)

    # When the subaccount is to be suspended
    job_id = want(world, brand.id, "suspended")
    assert run(world, job_id) == "failed"

    # Then the state is unsure, and the actual state is not changed
    row = now_is(world, brand)
    assert row.twilio_unsure_until > world.database.now()
    assert row.twilio_actual == "active"

    # When the job runs again, it reads that the suspension happened, and keeps checking
    world.due_now()
    assert run(world, job_id) == "postponed"
    assert now_is(world, brand).twilio_actual == "suspended"

    # Then, once no lost request can take effect any more, the job is done, with one change in all
    set_unsure_over(world)
    world.due_now()
    assert run(world, job_id) == "done"
    assert asked(world, brand.twilio_subaccount_sid, "POST") == 1


@pytest.mark.parametrize("status", [500, 502])
def test_5xx_answer_to_a_change_leaves_the_state_unsure(world, brand, status):
    world.sandbox.fault("twilio", "status", status=status, match=SUSPEND, times=1)

    job_id = want(world, brand.id, "suspended")

    assert run(world, job_id) == "failed"
    assert now_is(world, brand).twilio_unsure_until > world.database.now()


def test_429_answer_to_a_change_leaves_the_state_sure(world, brand):
    world.sandbox.fault("twilio", "status", status=429, match=SUSPEND, times=1)

    job_id = want(world, brand.id, "suspended")

    assert run(world, job_id) == "failed"
    assert now_is(world, brand).twilio_unsure_until is None


def test_lost_suspension_that_lands_after_the_reactivation_is_repaired(world, brand, monkeypatch):
    # Given a suspension whose request is still on its way when the worker gives up
    monkeypatch.setattr(http, "READ_SECONDS", 0.4)
    sid = brand.twilio_subaccount_sid
    fault = world.sandbox.fault("twilio", "hold", match=SUSPEND, times=1)
    assert run(world, want(world, brand.id, "suspended")) == "failed"
    assert held(world, fault)

    # And a reactivation that finds the subaccount active
    again = want(world, brand.id, "active")
    assert run(world, again) == "postponed"
    assert now_is(world, brand).twilio_actual == "active"

    # When the lost request takes effect after all
    release(world, fault)
    assert world.twilio_status(sid) == "suspended"

    # Then the next check finds the suspension and reverses it
    world.due_now()
    assert run(world, again) == "postponed"
    assert world.twilio_status(sid) == "active"
    assert now_is(world, brand).twilio_actual == "active"


def test_read_that_began_while_unsure_does_not_make_the_state_sure(world, brand, monkeypatch):
    # Given a subaccount that is unsure after a lost answer
    monkeypatch.setattr(http, "READ_SECONDS", 0.4)
    world.sandbox.fault("twilio", "act_then_drop", match=SUSPEND, times=1)
    job_id = want(world, brand.id, "suspended")
    assert run(world, job_id) == "failed"
    monkeypatch.undo()

    # When a read is on its way as the unsure time ends
    sid = brand.twilio_subaccount_sid
    fault = world.sandbox.fault(
        "twilio", "hold", match={"method": "GET", "path_contains": sid}, times=1
    )
    world.due_now()
    with another_thread() as start:
        outcome = start(run, world, job_id)
        assert held(world, fault)
        set_unsure_over(world)
        release(world, fault)

        # Then the job checks once more, for changes after that read was answered
        assert outcome.result() == "postponed"
    world.due_now()
    assert run(world, job_id) == "done"


def test_interrupted_request_leaves_the_state_unsure(world, brand):
    # Given a worker that waits for the answer to a suspension
    fault = world.sandbox.fault("twilio", "hold", match=SUSPEND, times=1)
    job_id = want(world, brand.id, "suspended")
    thread: list[int] = []

    def work():
        thread.append(threading.get_ident())
        return run(world, job_id)

    with another_thread() as start:
        outcome = start(work)
        assert held(world, fault)

        # When its time limit interrupts it just as the answer arrives
        raise_thread_exception(thread[0], TimeLimitExceeded)
        release(world, fault)
        assert outcome.result() == "failed"

    # Then the state is unsure, and it is checked again until it is known
    row = now_is(world, brand)
    assert row.twilio_lease_token is None
    assert row.twilio_unsure_until > world.database.now()


def test_one_of_two_workers_has_the_lease(world, brand):
    # Given a worker in the middle of its first read
    sid = brand.twilio_subaccount_sid
    fault = world.sandbox.fault(
        "twilio", "hold", match={"method": "GET", "path_contains": sid}, times=1
    )
    first, second = (want(world, brand.id, "suspended") for _ in range(2))
    gets = asked(world, sid, "GET")
    with another_thread() as start:
        outcome = start(run, world, first)
        assert held(world, fault)

        # When a second worker runs another job for the same brand, and the same job
        assert run(world, second) == "postponed"
        assert run(world, first) == "taken"

        # Then it sends no request to Twilio
        assert asked(world, sid, "GET") - gets == 1
        release(world, fault)
        assert outcome.result() == "done"

    # And when its job runs later, there is nothing left to change
    world.due_now()
    assert run(world, second) == "done"
    assert asked(world, sid, "POST") == 1


def test_worker_starts_again_when_the_desired_state_changes(world, brand):
    # Given a worker whose suspension is under way
    sid = brand.twilio_subaccount_sid
    fault = world.sandbox.fault("twilio", "hold", match=SUSPEND, times=1)
    first = want(world, brand.id, "suspended")
    with another_thread() as start:
        outcome = start(run, world, first)
        assert held(world, fault)

        # When the organization pays meanwhile
        want(world, brand.id, "active")
        release(world, fault)

        # Then the same worker sets the subaccount active before it releases the lease
        assert outcome.result() == "done"
    assert world.twilio_status(sid) == "active"
    row = now_is(world, brand)
    assert (row.twilio_actual, row.twilio_converged) == ("active", row.twilio_generation)
    assert asked(world, sid, "POST") == 2


def test_worker_reads_again_when_the_generation_changed_and_returned(world, brand):
    # Given a worker that has sent a read, whose answer is on its way
    sid = brand.twilio_subaccount_sid
    fault = world.sandbox.fault(
        "twilio", "hold", match={"method": "GET", "path_contains": sid}, times=1
    )
    gets = asked(world, sid, "GET")
    first = want(world, brand.id, "active")
    with another_thread() as start:
        outcome = start(run, world, first)
        assert held(world, fault)

        # When the desired state changes twice and is the same as before
        want(world, brand.id, "suspended")
        want(world, brand.id, "active")
        release(world, fault)
        assert outcome.result() == "done"

    # Then the worker reads again, because the answer is older than the newest generation
    assert asked(world, sid, "GET") - gets == 2
    row = now_is(world, brand)
    assert row.twilio_converged == row.twilio_generation


def test_worker_records_nothing_after_its_lease_was_taken_over(world, brand):
    # Given a slow worker, and another that took over after the lease had expired
    def lease():
        return world.do(
            lambda session, _: take_lease(session, brand.id, lease_seconds=60, unsure_seconds=60)
        )

    slow = lease()
    set_leases_over(world)
    newer = lease()
    assert now_is(world, brand).twilio_unsure_until is not None

    # When both record their answers, the newer one first
    def record(which, status):
        facts = SubaccountFacts(brand.twilio_subaccount_sid, TwilioStatus(status))
        return world.do(lambda session, now: record_state(session, which, facts, now))

    assert record(newer, "active") is None
    assert record(slow, "suspended") is None

    # Then the newer answer is kept, and the newer worker still has the lease
    row = now_is(world, brand)
    assert (row.twilio_actual, row.twilio_lease_token) == ("active", newer.token)


def test_worker_changes_nothing_after_half_of_its_lease(world, brand, monkeypatch):
    # Given a short lease, and a first read that takes longer than half of it
    short = replace(CONVERGE_TWILIO, limit_seconds=0.3 - 5)
    monkeypatch.setitem(JOB_TYPES, CONVERGE_TWILIO.name, short)
    world.sandbox.fault("twilio", "delay", match={"method": "GET"}, seconds=0.4, times=1)

    # When the subaccount is to be suspended
    job_id = want(world, brand.id, "suspended")
    assert run(world, job_id) == "failed"

    # Then no change was sent, because it could take effect during the next worker's lease
    assert "LeaseTooOld" in newest_attempt(world, job_id).error
    assert asked(world, brand.twilio_subaccount_sid, "POST") == 0
    assert now_is(world, brand).twilio_unsure_until is None


def test_rejected_credentials_use_up_attempts_and_leave_the_lease_free(world, brand):
    # Given a Twilio that rejects our token
    world.sandbox.fault("twilio", "status", status=401)
    job_id = want(world, brand.id, "suspended")

    # When the job runs, Then it fails and will be retried
    assert run(world, job_id) == "failed"
    assert "CredentialsRejected" in newest_attempt(world, job_id).error
    assert now_is(world, brand).twilio_lease_token is None
