"""Each outcome of a job is written to its row; no error reaches the queue."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from dramatiq.middleware import TimeLimitExceeded
from structlog.testing import capture_logs

from base.outcomes import NotYet, OutcomeUnknown, ProviderUnavailable, Refused
from db.address import driver_url
from db.busy import StatementTooSlow
from db.engine import Database, clock
from db.jobs import operator as job_operator
from db.models import Job, JobAttempt, Organization
from domain.jobs.staging import stage
from domain.jobs.types import JOB_TYPES
from tests.support.world import make_organization
from tests.workers.failing_processes import die_in_job, notify_once
from tests.workers.scenes import execute_sql, newest_attempt
from workers.attempt import Later
from workers.executor import Executor

OWN = "enforce_organization"
OUTSIDE = "converge_twilio"


def executor(world, actor, worker="worker-a"):
    actors = {OWN: actor, OUTSIDE: actor}
    return Executor(world.database, world.providers, world.settings, actors, worker)


def staged(world, name=OWN):
    argument = {OWN: "organization_id", OUTSIDE: "brand_id"}[name]
    return world.stage(name, **{argument: "one"})


def raising(error):
    def actor(run, **arguments):
        raise error

    return actor


def test_done_job_and_its_effect_are_committed_together(world):
    # Given a job that makes an organization
    def actor(run, organization_id):
        run.job_session.add(Organization(id=organization_id, name="made", created_at=run.now))

    job_id = staged(world)

    # When it runs
    assert executor(world, actor).execute(job_id) == "done"

    # Then its effect, its outcome and its attempt are stored
    job = world.job(job_id)
    assert world.read(Organization, id="one")[0].name == "made"
    assert (job.outcome, job.attempt, job.ring_at, job.worker) == ("done", 1, None, "worker-a")
    attempt = newest_attempt(world, job_id)
    assert (attempt.outcome, attempt.worker) == ("done", "worker-a")
    assert attempt.started_at <= attempt.ended_at


def test_actor_with_a_provider_ends_its_job_with_what_it_records(world):
    # Given an actor that stores a provider's answer
    def actor(run, brand_id):
        run.record(
            lambda session: session.add(
                Organization(id=brand_id, name="told", created_at=clock(session))
            )
        )

    # When it runs
    job_id = staged(world, OUTSIDE)
    assert executor(world, actor).execute(job_id) == "done"

    # Then both the answer and the outcome are stored
    assert world.read(Organization, id="one")
    assert world.job(job_id).outcome == "done"


def test_done_job_is_logged_once_with_duration_and_organization(world):
    # Given a job of an organization, and one that is refused
    organization_id = make_organization(world.database)
    job = JOB_TYPES[OWN]
    job_id = world.do(
        lambda session, _: stage(session, job, organization_id, organization_id=organization_id)
    )
    refused = staged(world)
    with capture_logs() as logs:
        # When they run, and a second notification of the first one comes
        run = executor(world, lambda run, organization_id: None)
        assert [run.execute(job_id), run.execute(job_id)] == ["done", "taken"]
        executor(world, raising(Refused("NOT_FOUND"))).execute(refused)
    # Then the done job is logged once
    (line,) = [one for one in logs if one["event"] == "job_done"]
    assert (line["job_name"], line["organization"]) == (OWN, organization_id)
    assert line["duration_ms"] > 0
    assert (line["log_level"], line["correlation_id"][:4]) == ("info", "cor_")


@pytest.mark.parametrize("name", [OWN, OUTSIDE])
def test_refusal_is_stored_and_not_retried(world, name):
    # When an actor refuses
    job_id = staged(world, name)
    run = executor(world, raising(Refused("NOT_FOUND", "no such thing")))
    assert run.execute(job_id) == "refused"

    # Then the job is over, with the reason
    job = world.job(job_id)
    assert (job.outcome, job.ring_at, job.failures) == ("refused", None, 0)
    assert job.last_error == "NOT_FOUND: no such thing"
    assert newest_attempt(world, job_id).outcome == "refused"
    assert run.execute(job_id) == "taken"


@pytest.mark.parametrize("name", [OWN, OUTSIDE])
def test_postponed_job_waits_without_using_up_an_attempt(world, name):
    # When an actor postpones its job
    job_id = staged(world, name)
    run = executor(world, raising(NotYet("somebody else has it", 600)))
    assert run.execute(job_id) == "postponed"

    # Then the next notification is set for later, and no failure is counted
    job = world.job(job_id)
    assert (job.failures, job.postponements, job.done_at) == (0, 1, None)
    assert (job.ring_at - world.database.now()).total_seconds() > 300
    attempt = newest_attempt(world, job_id)
    assert (attempt.outcome, attempt.error) == ("postponed", "somebody else has it")

    # And a second notification does not cut the wait short
    assert run.execute(job_id) == "taken"


def test_statement_that_took_too_long_uses_up_an_attempt(world):
    job_id = staged(world)
    too_slow = raising(StatementTooSlow("database: QueryCanceled"))
    assert executor(world, too_slow).execute(job_id) == "failed"
    assert (world.job(job_id).failures, world.job(job_id).postponements) == (1, 0)


def test_actor_may_postpone_its_job_while_recording(world):
    # Given an actor that stores something and has more to do
    def actor(run, brand_id):
        run.record(lambda session: Later(600, "look again"))

    # When it runs
    job_id = staged(world, OUTSIDE)

    # Then its job is postponed, without a failure
    assert executor(world, actor).execute(job_id) == "postponed"
    assert (world.job(job_id).postponements, world.job(job_id).failures) == (1, 0)


@pytest.mark.parametrize("name", [OWN, OUTSIDE])
@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), TimeLimitExceeded("too long"), OutcomeUnknown("lost")]
)
def test_failed_attempt_stores_its_traceback_and_the_next_time(world, name, error):
    # When an actor raises an unexpected error, or exceeds its time limit
    job_id = staged(world, name)
    assert executor(world, raising(error)).execute(job_id) == "failed"

    # Then its error, traceback and worker are stored, and the job is notified later
    job, attempt = world.job(job_id), newest_attempt(world, job_id)
    assert (job.failures, job.attempt, job.done_at, job.lease_until) == (1, 1, None, None)
    assert attempt.started_at < min(job.due_at, job.ring_at)
    assert repr(error) == attempt.error == job.last_error
    assert "in actor" in attempt.traceback
    assert (attempt.outcome, attempt.worker) == ("failed", "worker-a")

    # And the next attempt runs in another worker
    world.due_now()
    assert executor(world, lambda run, **_: None, "worker-b").execute(job_id) in ("done", "failed")
    assert [one.worker for one in _attempts(world, job_id)] == ["worker-a", "worker-b"]


def _attempts(world, job_id):
    return sorted(world.read(JobAttempt, job_id=job_id), key=lambda one: one.attempt)


@pytest.mark.parametrize(("asked", "given"), [(30, 30), (86_400, 60)])
def test_retry_after_of_the_provider_is_followed_within_bounds(world, asked, given):
    job_id = staged(world, OUTSIDE)
    run = executor(world, raising(ProviderUnavailable("HTTP 429", asked)))

    assert run.execute(job_id) == "failed"

    wait = world.job(job_id).due_at - newest_attempt(world, job_id).ended_at
    assert round(wait.total_seconds()) == given


def test_job_is_dead_when_its_policy_is_used_up_and_runs_when_redriven(world):
    # Given a job with one attempt left
    job_id = staged(world)
    execute_sql(world, "UPDATE jobs SET failures = 19 WHERE id = %s", job_id)
    run = executor(world, raising(RuntimeError("still broken")))

    # When that attempt fails too
    assert run.execute(job_id) == "dead"

    # Then the job stays dead, with its cause, until an operator acts
    job = world.job(job_id)
    assert (job.failures, job.ring_at, job.done_at) == (20, None, None)
    assert job.dead_at is not None
    assert job.last_error == "RuntimeError('still broken')"
    assert run.execute(job_id) == "taken"

    # And when it is redriven, it has all of its attempts again
    assert world.do(lambda session, _: job_operator.redrive(session, job_id))
    assert executor(world, lambda run, **_: None).execute(job_id) == "done"


def test_error_that_the_policy_calls_permanent_ends_the_job_dead(world, monkeypatch):
    # Given a job whose policy declares one kind of error permanent
    job_id = staged(world)
    declared = JOB_TYPES[OWN]
    policy = replace(declared.policy, permanent=(Refused, ZeroDivisionError))
    monkeypatch.setitem(JOB_TYPES, OWN, replace(declared, policy=policy))

    # When its actor raises that error
    assert executor(world, raising(ZeroDivisionError("never"))).execute(job_id) == "dead"

    # Then it is dead after one attempt, while any other error is retried
    assert (world.job(job_id).failures, world.job(job_id).ring_at) == (1, None)
    assert executor(world, raising(KeyError("once"))).execute(staged(world)) == "failed"


def test_done_leased_or_not_yet_due_job_is_not_run(world):
    ran = []
    run = executor(world, lambda run, **_: ran.append(1))

    done = staged(world)
    assert run.execute(done) == "done"
    assert run.execute(done) == "taken"

    leased = staged(world, OUTSIDE)
    execute_sql(
        world,
        "UPDATE jobs SET lease_until = clock_timestamp() + interval '1 minute' WHERE id = %s",
        leased,
    )
    assert run.execute(leased) == "taken"
    assert run.execute("job_unknown") == "taken"
    assert len(ran) == 1


def test_locked_job_is_not_run(world):
    # Given a job that another worker runs in its transaction
    job_id = staged(world)
    with psycopg.connect(driver_url(world.database.url)) as other:
        other.execute("SELECT 1 FROM jobs WHERE id = %s FOR NO KEY UPDATE", [job_id])

        # When it is notified a second time, Then the second worker does not wait for it
        assert executor(world, lambda run, **_: None).execute(job_id) == "taken"

    # And the job runs when the first worker is gone
    assert executor(world, lambda run, **_: None).execute(job_id) == "done"


def test_job_that_raises_rolls_its_work_back_and_keeps_its_attempt(world):
    # Given a job that writes, and then fails
    def actor(run, organization_id):
        run.job_session.add(Organization(id=organization_id, name="half done", created_at=run.now))
        run.job_session.flush()
        raise RuntimeError("in the middle")

    # When it runs
    job_id = staged(world)
    assert executor(world, actor).execute(job_id) == "failed"

    # Then only its attempt is stored
    assert world.read(Organization, id="one") == []
    assert newest_attempt(world, job_id).error == "RuntimeError('in the middle')"


def test_job_is_left_to_its_next_notification_without_a_database(world):
    # Given a worker whose database does not answer
    away = Database("postgresql://holdfast_app@/nowhere?host=/nowhere", name="away")
    run = Executor(away, world.providers, world.settings, {}, "worker-a")

    # When it is notified, Then no error is raised and the notification is not lost
    job_id = staged(world)
    assert run.execute(job_id) == "unknown"
    assert world.job(job_id).ring_at is not None


def test_interrupt_while_recording_the_outcome_is_not_raised(world):
    # Given a worker whose time limit ends exactly when it records a failure
    run = executor(world, raising(RuntimeError("a bug")))

    def cut_off(write):
        raise TimeLimitExceeded("too long")

    run._commit_outcome = cut_off

    # When it runs, Then the job is left for its next notification
    job_id = staged(world, OUTSIDE)
    assert run.execute(job_id) == "unknown"
    assert world.job(job_id).ring_at is not None


def test_expired_claim_records_the_answer_but_does_not_end_the_job(world):
    # Given a slow worker whose lease expires, and another worker that takes the job and fails
    other = executor(world, raising(RuntimeError("the newer attempt failed")), "worker-b")

    def slow(run, brand_id):
        world.due_now()
        assert other.execute(run.claim.job_id) == "failed"
        run.record(
            lambda session: session.add(
                Organization(id=brand_id, name="told", created_at=clock(session))
            )
        )

    # When the slow worker has the provider's answer
    job_id = staged(world, OUTSIDE)
    assert executor(world, slow).execute(job_id) == "taken"

    # Then the answer is stored, and the job still belongs to the newer claim
    assert world.read(Organization, id="one")
    job = world.job(job_id)
    assert (job.done_at, job.attempt, job.worker) == (None, 2, "worker-b")
    assert [one.outcome for one in _attempts(world, job_id)] == [None, "failed"]


def test_correlation_id_is_passed_from_the_event_to_every_job(world):
    # Given a customer whose subscription was suspended at PayPal
    customer = world.customer()
    before = {job.id for job in world.read(Job)}
    world.set_status_at_paypal(customer.subscription_id, "SUSPENDED")

    # When the event arrives and all its jobs have run
    kind = "BILLING.SUBSCRIPTION.SUSPENDED"
    body = f'{{"id":"WH-7","event_type":"{kind}","resource":{{"id":"{customer.subscription_id}"}}}}'
    world.receive("WH-7", kind, body.encode())
    world.run_due()

    # Then every job has the event's correlation id and names its cause
    made = {job.id: job for job in world.read(Job) if job.id not in before}
    assert {job.name for job in made.values()} == {
        "process_event",
        "look_at_subscription",
        "converge_twilio",
    }
    assert {job.correlation_id for job in made.values()} == {"cor_WH-7"}
    chain = {job.name: job.cause for job in made.values()}
    assert chain["process_event"] == "evt_WH-7"
    assert made[chain["look_at_subscription"]].name == "process_event"
    assert made[chain["converge_twilio"]].name == "look_at_subscription"
    assert world.brands(customer.id)[0].twilio_actual == "suspended"


def test_job_that_kills_its_workers_ends_dead(world, processes):
    # Given a job whose actor kills the process it runs in
    job_id = staged(world)
    assert _killed_by(processes, job_id) == -9

    # When it has killed one worker, nothing about the attempt was stored
    assert (world.job(job_id).attempt, world.read(JobAttempt, job_id=job_id)) == (0, [])

    # And once it was notified more than four times, each further death counts
    for _ in range(5):
        world.due_now()
        assert processes.call(notify_once, 1).ended() == 0
    for deaths in (1, 2, 3):
        assert _killed_by(processes, job_id) == -9
        assert world.job(job_id).attempt == deaths
        assert world.job(job_id).lease_until is not None
        world.due_now()

    # Then the worker that claims it after the last attempt buries it, and lives
    execute_sql(world, "UPDATE jobs SET failures = 19 WHERE id = %s", job_id)
    survivor = executor(world, lambda run, **_: None)
    assert survivor.execute(job_id) == "dead"
    job = world.job(job_id)
    assert job.dead_at is not None
    assert "its workers died" in job.last_error


def _killed_by(processes, job_id):
    return processes.call(die_in_job, job_id).ended()
