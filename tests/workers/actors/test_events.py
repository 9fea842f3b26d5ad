"""Processing inbox events: each event takes effect once, even if its job repeats."""

from __future__ import annotations

import json

import pytest

from db.models import InboxEvent, Job
from tests.workers.scenes import another_thread, execute_sql, run

SUSPENDED = "BILLING.SUBSCRIPTION.SUSPENDED"


def receive(world, event_id, event_type, resource, **more):
    body = json.dumps({"id": event_id, "event_type": event_type, "resource": resource, **more})
    assert world.receive(event_id, event_type, body.encode()) == "new"
    return f"job_{event_id}"


def staged_refreshes(world):
    return [job for job in world.read(Job) if job.name.startswith("look_at")]


@pytest.mark.parametrize(
    ("event_type", "resource", "name"),
    [
        (SUSPENDED, {"id": "I-ABC"}, "look_at_subscription"),
        ("BILLING.SUBSCRIPTION.ACTIVATED", {"id": "I-ABC"}, "look_at_subscription"),
        ("PAYMENT.SALE.COMPLETED", {"billing_agreement_id": "I-ABC"}, "look_at_subscription"),
        ("PAYMENT.CAPTURE.COMPLETED", {"id": "7XX"}, "look_at_payment"),
        ("PAYMENT.CAPTURE.REFUNDED", {"id": "7XX"}, "look_at_payment"),
    ],
)
def test_event_stages_a_refresh_of_its_object(world, event_type, resource, name):
    # When an event is processed
    assert run(world, receive(world, "WH-1", event_type, resource)) == "done"

    # Then a refresh of the named object is staged, and nothing else has happened
    (job,) = staged_refreshes(world)
    assert job.name == name
    assert job.kwargs["external_id"] in ("I-ABC", "7XX")
    assert world.event("WH-1").outcome == "handled"
    assert world.event("WH-1").handled_at is not None


@pytest.mark.parametrize("event_type", ["BILLING.PLAN.CREATED", "SOMETHING.NEW"])
def test_event_without_an_effect_is_kept_and_marked_ignored(world, event_type):
    assert run(world, receive(world, "WH-1", event_type, {"id": "P-1"})) == "done"

    assert world.event("WH-1").outcome == "ignored"
    assert staged_refreshes(world) == []


def test_event_with_an_unusable_resource_is_kept_and_marked(world):
    job_id = receive(world, "WH-1", SUSPENDED, {"id": "../../etc"})

    assert run(world, job_id) == "done"
    (kept,) = world.read(InboxEvent)
    assert kept.outcome == "malformed"
    assert kept.handled_at is not None
    assert staged_refreshes(world) == []


def test_job_of_an_event_that_was_pruned_is_refused(world):
    job_id = receive(world, "WH-1", SUSPENDED, {"id": "I-ABC"})
    execute_sql(world, "DELETE FROM inbox")

    assert run(world, job_id) == "refused"
    assert world.job(job_id).last_error.startswith("EVENT_NOT_FOUND")


def test_event_processed_again_changes_nothing(world):
    # Given an event that was handled
    job_id = receive(world, "WH-1", SUSPENDED, {"id": "I-ABC"})
    assert [run(world, job_id), run(world, job_id)] == ["done", "taken"]
    handled_at = world.event("WH-1").handled_at

    # When another job for it runs
    assert run(world, world.stage("process_event", event_id="evt_WH-1")) == "done"

    # Then nothing more was staged
    assert len(staged_refreshes(world)) == 1
    assert world.event("WH-1").handled_at == handled_at


def test_jobs_for_one_event_at_once_handle_it_once(world):
    # Given four jobs for one event
    ids = [receive(world, "WH-1", SUSPENDED, {"id": "I-ABC"})]
    ids += [world.stage("process_event", event_id="evt_WH-1") for _ in range(3)]

    # When all run at once
    with another_thread() as start:
        outcomes = [start(run, world, job_id).result for job_id in ids]
        assert {result() for result in outcomes} <= {"done", "postponed"}
    world.due_now()
    for job_id in ids:
        run(world, job_id)

    # Then one refresh follows
    assert len(staged_refreshes(world)) == 1


def test_events_out_of_order_end_in_the_providers_state(world):
    # Given a customer whose subscription is active at PayPal
    customer = world.customer()
    resource = {"id": customer.subscription_id}

    # When a reactivation arrives first and an older suspension last
    receive(world, "WH-2", "BILLING.SUBSCRIPTION.ACTIVATED", resource)
    world.run_due()
    old = "2020-01-01T00:00:00Z"
    receive(world, "WH-1", SUSPENDED, resource, create_time=old)
    world.run_due()

    # Then the customer may still spend
    assert world.subscription(customer.subscription_id).closing_reported_at is None
    assert world.campaign(customer.campaign_ids[0]).status == "running"
    assert [world.twilio_status(sid) for sid in customer.sids] == ["active", "active"]
