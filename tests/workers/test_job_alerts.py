"""A money or safety job that dies or is refused raises an alert in its commit."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.exc import SQLAlchemyError

from base.enums import Queue
from base.operators import Operator
from base.outcomes import Refused
from db.models import Alert
from domain.alerts.queries import list_alerts
from domain.jobs.operator import discard_manually, redrive_manually
from domain.jobs.types import JOB_TYPES
from tests.support.world import make_organization
from tests.workers.scenes import execute_sql, pay, run, stage_refresh
from workers.actors import ACTORS
from workers.executor import Executor

OF_ORGANIZATION = "UPDATE jobs SET organization_id = %s WHERE id = %s"
ALERTED = sorted(
    name for name, job in JOB_TYPES.items() if job.queue in (Queue.SAFETY, Queue.BILLING)
)


def executor(world, actor):
    return Executor(
        world.database,
        world.providers,
        world.settings,
        dict.fromkeys(ACTORS, actor),
        "worker-a",
    )


def raising(error):
    def actor(run, **arguments):
        raise error

    return actor


def open_alerts(world, kind="job_dead"):
    return [one for one in world.read(Alert, kind=kind) if one.cleared_at is None]


def staged(world, name, **given):
    arguments = dict.fromkeys(JOB_TYPES[name].arguments, "one") | given
    return world.stage(name, **arguments)


def last_attempt(world, job_id, name):
    attempts = JOB_TYPES[name].policy.attempts
    execute_sql(world, "UPDATE jobs SET failures = %s WHERE id = %s", attempts - 1, job_id)


@pytest.mark.parametrize("name", ALERTED)
def test_job_raises_an_alert_when_its_last_attempt_fails(world, name):
    # Given a job that fails once without an alert
    job_id = staged(world, name)
    failing = executor(world, raising(RuntimeError("broken \x00")))
    assert failing.execute(job_id) == "failed"
    assert open_alerts(world) == []

    # When its last attempt fails
    last_attempt(world, job_id, name)
    world.due_now()
    assert failing.execute(job_id) == "dead"

    # Then one alert names the job and what its death means for money
    (alert,) = open_alerts(world)
    assert (alert.subject, alert.severity, alert.organization_id) == (job_id, "critical", None)
    assert alert.details["job"] == name
    assert alert.details["arguments"] == dict.fromkeys(JOB_TYPES[name].arguments, "one")
    assert alert.details["state"] == "dead"
    assert alert.details["error"].startswith("RuntimeError('broken")
    assert len(alert.details["meaning"]) > 40
    assert job_id in alert.details["next"]


@pytest.mark.parametrize("name", ["enforce_organization", "converge_twilio"])
def test_job_raises_an_alert_when_its_workers_died(world, name):
    job_id = staged(world, name)
    attempts = JOB_TYPES[name].policy.attempts
    execute_sql(world, "UPDATE jobs SET failures = %s WHERE id = %s", attempts, job_id)
    assert executor(world, raising(RuntimeError("never run"))).execute(job_id) == "dead"
    assert [one.details["error"] for one in open_alerts(world)] == [
        "out of attempts: its workers died"
    ]


@pytest.mark.parametrize("name", ["freeze_wallet", "converge_twilio"])
def test_refused_job_is_alerted_once_for_the_same_work(world, name):
    refusing = executor(world, raising(Refused("NO", "never")))
    first, second, other = (
        staged(world, name),
        staged(world, name),
        staged(world, name, **{JOB_TYPES[name].arguments[0]: "two"}),
    )
    assert [refusing.execute(one) for one in (first, second, other)] == ["refused"] * 3
    assert sorted(one.subject for one in open_alerts(world)) == sorted([first, other])
    assert {one.details["error"] for one in open_alerts(world)} == {"NO: never"}


def test_alert_of_a_job_names_its_organization(world):
    organization_id = make_organization(world.database)
    job_id = staged(world, "enforce_organization", organization_id=organization_id)
    execute_sql(
        world, "UPDATE jobs SET organization_id = %s WHERE id = %s", organization_id, job_id
    )
    assert executor(world, raising(Refused("NO"))).execute(job_id) == "refused"
    assert [one.organization_id for one in open_alerts(world)] == [organization_id]


def test_upkeep_job_raises_no_alert_when_it_dies(world):
    job_id = world.stage("prune")
    last_attempt(world, job_id, "prune")
    assert executor(world, raising(RuntimeError("broken"))).execute(job_id) == "dead"
    assert open_alerts(world) == []


def test_job_does_not_end_when_its_alert_cannot_be_written(world, monkeypatch):
    # Given a job whose last attempt fails while alerts cannot be written
    job_id = staged(world, "freeze_wallet")
    last_attempt(world, job_id, "freeze_wallet")

    def broken(*_, **__):
        raise SQLAlchemyError("no alert")

    with monkeypatch.context() as patched:
        patched.setattr("domain.jobs.alerts.raise_alert", broken)
        assert executor(world, raising(RuntimeError("x"))).execute(job_id) == "unknown"
    # Then the job is not dead yet: it is retried, and dies with an alert
    assert world.job(job_id).dead_at is None
    world.due_now()
    assert executor(world, raising(RuntimeError("x"))).execute(job_id) == "dead"
    assert [one.subject for one in open_alerts(world)] == [job_id]


@pytest.mark.parametrize("act", [redrive_manually, discard_manually])
def test_alert_is_cleared_when_a_person_redrives_or_discards(world, act):
    job_id = staged(world, "freeze_wallet")
    last_attempt(world, job_id, "freeze_wallet")
    failing = executor(world, raising(RuntimeError("x")))
    assert failing.execute(job_id) == "dead"
    world.do(lambda session, now: act(session, job_id, operator=Operator("ann", "seen"), now=now))
    assert open_alerts(world) == []
    if act is redrive_manually:
        # When it dies again, it has an alert again
        last_attempt(world, job_id, "freeze_wallet")
        assert failing.execute(job_id) == "dead"
        assert len(open_alerts(world)) == 1


def test_alert_is_cleared_when_another_job_does_the_work(world):
    refused = staged(world, "converge_twilio")
    assert executor(world, raising(Refused("SUBACCOUNT_CLOSED"))).execute(refused) == "refused"
    other = staged(world, "converge_twilio", brand_id="two")
    done = executor(world, lambda run, **_: run.record(lambda _: None))
    assert done.execute(other) == "done"
    assert len(open_alerts(world)) == 1
    assert done.execute(staged(world, "converge_twilio")) == "done"
    assert open_alerts(world) == []


def end_badly(world, name, how, **arguments):
    """Have a job with these arguments die or be refused; return its id."""
    job_id = staged(world, name, **arguments)
    if how == "dead":
        last_attempt(world, job_id, name)
        assert executor(world, raising(RuntimeError("x"))).execute(job_id) == "dead"
    else:
        assert executor(world, raising(Refused("NO"))).execute(job_id) == "refused"
    return job_id


@pytest.mark.parametrize("how", ["dead", "refused"])
@pytest.mark.parametrize("rings", [0, 9], ids=["one_commit", "claim_committed_first"])
def test_own_job_clears_alert_of_equal_job_when_it_is_done(world, how, rings):
    # Given alerts of an ended job, and of ended jobs with other arguments and another name
    end_badly(world, "freeze_wallet", how)
    others = [
        end_badly(world, "freeze_wallet", how, cause="two"),
        end_badly(world, "unfreeze_wallet", how),
    ]
    # When an equal job that uses only our database fails, Then the alert stays
    done = executor(world, lambda run, **_: None)
    assert executor(world, raising(RuntimeError("x"))).execute(staged(world, "freeze_wallet")) == (
        "failed"
    )
    assert len(open_alerts(world)) == 3
    # When an equal job succeeds, Then its alert is cleared, and the others are not
    equal = staged(world, "freeze_wallet")
    execute_sql(world, "UPDATE jobs SET rings = %s WHERE id = %s", rings, equal)
    assert done.execute(equal) == "done"
    assert sorted(one.subject for one in open_alerts(world)) == sorted(others)


def test_own_job_clears_no_alert_when_its_transaction_fails(world, monkeypatch):
    end_badly(world, "freeze_wallet", "dead")

    def broken(*_, **__):
        raise SQLAlchemyError("the commit fails")

    job_id = staged(world, "freeze_wallet")
    with monkeypatch.context() as patched:
        patched.setattr("db.jobs.lifecycle.finish", broken)
        executor(world, lambda run, **_: None).execute(job_id)
    assert len(open_alerts(world)) == 1


def test_every_money_or_safety_job_declares_what_its_death_means():
    assert [name for name in ALERTED if not JOB_TYPES[name].death_means.endswith(".")] == []


def test_event_that_cannot_be_parsed_raises_an_alert(world):
    body = json.dumps(
        {"id": "WH-1", "event_type": "BILLING.SUBSCRIPTION.SUSPENDED", "resource": {"id": "../x"}}
    )
    world.receive("WH-1", "BILLING.SUBSCRIPTION.SUSPENDED", body.encode())
    assert run(world, "job_WH-1") == "done"
    (alert,) = open_alerts(world, "event_unreadable")
    assert (alert.subject, alert.severity) == ("evt_WH-1", "critical")
    assert alert.details["source"] == "paypal"
    assert alert.details["event_type"] == "BILLING.SUBSCRIPTION.SUSPENDED"
    assert world.event("WH-1").outcome == "malformed"
    assert open_alerts(world) == []


def test_unassigned_subscription_is_alerted_once_until_settled(world):
    # Given a subscription at PayPal that names no organization of ours
    made = world.sandbox.control(
        "POST",
        "/paypal/subscriptions",
        {"organization_id": "org_of_nobody", "status": "ACTIVE", "deliver": False},
    )
    # When it is refreshed twice
    for _ in range(2):
        job_id = world.stage("look_at_subscription", provider="paypal", external_id=made["id"])
        assert run(world, job_id) == "refused"
    # Then there is one alert about the subscription, and none about a job
    (alert,) = open_alerts(world, "subscription_unsettled")
    assert (alert.subject, alert.organization_id) == (made["id"], None)
    assert alert.details["code"] == "UNKNOWN_ORGANIZATION"
    assert open_alerts(world) == []
    # When the organization exists, Then the next refresh clears the alert
    execute_sql(
        world, "INSERT INTO organizations VALUES ('org_of_nobody', 'Late', clock_timestamp())"
    )
    job_id = world.stage("look_at_subscription", provider="paypal", external_id=made["id"])
    assert run(world, job_id) == "postponed"
    assert open_alerts(world, "subscription_unsettled") == []


def test_unassigned_payment_raises_only_the_payment_alert(world):
    capture_id = pay(world, "org_of_nobody")
    assert run(world, stage_refresh(world, capture_id)) == "refused"
    assert [one.subject for one in open_alerts(world, "payment_unsettled")] == [capture_id]
    assert open_alerts(world) == []


def test_alert_of_a_dead_job_is_listed_for_its_organization(world):
    organization_id = make_organization(world.database)
    job_id = staged(world, "freeze_wallet", organization_id=organization_id)
    execute_sql(
        world, "UPDATE jobs SET organization_id = %s WHERE id = %s", organization_id, job_id
    )
    assert executor(world, raising(Refused("NO"))).execute(job_id) == "refused"
    found = world.do(lambda session, _: list_alerts(session, organization_id=organization_id))
    assert [(one.kind, one.subject) for one in found] == [("job_dead", job_id)]
