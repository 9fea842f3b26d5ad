"""Subscriptions: only the provider's answer opens, and enforcement is repaired."""

from __future__ import annotations

import pytest

from base.enums import Provider, SubscriptionStatus
from base.facts import SubscriptionFacts
from db.models import Job, Subscription
from domain import subscription_refresh, subscriptions
from domain.entitlement import spending_block
from tests.support.world import make_organization
from tests.workers.scenes import (
    another_thread,
    asked,
    clear_faults,
    execute_sql,
    held,
    jobs_of,
    newest_attempt,
    release,
    run,
)

SUBSCRIPTION_READ = {"method": "GET", "path_contains": "/v1/billing/subscriptions/"}


def subscribe(world, organization_id, status="ACTIVE"):
    """Make a subscription at PayPal that we do not know yet."""
    made = world.sandbox.control(
        "POST",
        "/paypal/subscriptions",
        {"organization_id": organization_id, "status": status, "deliver": False},
    )
    return made["id"]


def stage_refresh(world, subscription_id):
    return world.stage("look_at_subscription", provider="paypal", external_id=subscription_id)


def stage_second_refresh(world, subscription_id):
    given = {"provider": "paypal", "external_id": subscription_id}
    return world.stage_twin("look_at_subscription", **given)


def requests_sent(world, subscription_id):
    return len(world.sandbox.requests(provider="paypal", path_contains=subscription_id))


def may_send(world, organization_id):
    return world.do(lambda session, now: spending_block(session, organization_id, now))


def test_refresh_of_an_active_subscription_allows_spending(world):
    # Given an organization with money, and a subscription that we do not know
    organization_id = make_organization(world.database, micros=1_000_000)
    assert may_send(world, organization_id) == "SUBSCRIPTION_INACTIVE"

    # When the subscription is refreshed
    job_id = stage_refresh(world, subscribe(world, organization_id))
    assert run(world, job_id) == "postponed"  # It had no row yet, and so no lease.
    assert may_send(world, organization_id) == "SUBSCRIPTION_INACTIVE"
    assert run(world, job_id) == "done"

    # Then the organization may spend, and a replay changes nothing
    assert may_send(world, organization_id) is None
    assert run(world, job_id) == "taken"
    assert len(world.read(Subscription)) == 1


def test_subscription_that_the_provider_does_not_know_is_refreshed_again(world):
    assert run(world, stage_refresh(world, "I-UNKNOWN00001")) == "failed"
    assert world.read(Subscription) == []


def test_subscription_that_names_no_organization_of_ours_is_refused(world):
    # Given a subscription at PayPal that names an unknown organization
    job_id = stage_refresh(world, subscribe(world, "org_of_nobody"))

    # When it is refreshed, Then its job is refused with the reason
    assert run(world, job_id) == "refused"
    assert world.job(job_id).last_error.startswith("UNKNOWN_ORGANIZATION")
    assert world.read(Subscription) == []


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("status", {"status": 500}),
        ("status", {"status": 429, "headers": {"Retry-After": "90"}}),
        ("drop", {}),
    ],
)
def test_subscription_is_opened_later_when_paypal_is_away(world, kind, more):
    # Given a suspended customer whose subscription is active again, at a PayPal that is away
    customer = world.customer()
    world.set_status_at_paypal(customer.subscription_id, "SUSPENDED")
    assert run(world, stage_refresh(world, customer.subscription_id)) == "done"
    world.run_due()
    world.set_status_at_paypal(customer.subscription_id, "ACTIVE")
    world.sandbox.fault("paypal", kind, match=SUBSCRIPTION_READ, **more)

    # When the reactivation is refreshed
    job_id = stage_refresh(world, customer.subscription_id)
    assert run(world, job_id) == "failed"

    # Then the customer still may not spend, the lease is free, and the job waits
    assert may_send(world, customer.id) == "SUBSCRIPTION_INACTIVE"
    assert world.subscription(customer.subscription_id).look_token is None
    job = world.job(job_id)
    assert job.ring_at is not None
    if "headers" in more:
        assert (job.due_at - world.database.now()).total_seconds() > 45

    # And when PayPal answers again, the customer may spend
    clear_faults(world)
    world.due_now()
    world.run_due()
    assert may_send(world, customer.id) is None
    assert [world.twilio_status(sid) for sid in customer.sids] == ["active", "active"]


@pytest.mark.parametrize("kind", ["act_then_drop", "status"])
def test_refresh_is_repeated_at_once_when_one_answer_is_lost(world, kind):
    organization_id = make_organization(world.database, micros=1)
    subscription_id = subscribe(world, organization_id)
    world.sandbox.fault("paypal", kind, match=SUBSCRIPTION_READ, times=1)

    job_id = stage_refresh(world, subscription_id)
    assert [run(world, job_id), run(world, job_id)] == ["postponed", "done"]

    assert requests_sent(world, subscription_id) == 3
    assert world.subscription(subscription_id).status == "active"


def test_concurrent_refreshes_send_one_request(world):
    # Given a refresh that waits for PayPal's answer
    customer = world.customer()
    fault = world.sandbox.fault("paypal", "hold", match=SUBSCRIPTION_READ, times=1)
    before = requests_sent(world, customer.subscription_id)
    first, second = (stage_second_refresh(world, customer.subscription_id) for _ in range(2))
    with another_thread() as start:
        outcome = start(run, world, first)
        assert held(world, fault)

        # When a second refresh starts, Then it is postponed without a request
        assert run(world, second) == "postponed"
        assert requests_sent(world, customer.subscription_id) - before == 1
        release(world, fault)
        assert outcome.result() == "done"

    # And later it runs
    world.due_now()
    assert run(world, second) == "done"


def test_concurrent_first_refreshes_make_one_subscription(world):
    # Given two refreshes of a subscription that has no row yet, both waiting for PayPal
    organization_id = make_organization(world.database, micros=1)
    subscription_id = subscribe(world, organization_id)
    fault = world.sandbox.fault("paypal", "hold", match=SUBSCRIPTION_READ, times=2)
    ids = [stage_second_refresh(world, subscription_id) for _ in range(2)]
    with another_thread() as start:
        outcomes = [start(run, world, job_id) for job_id in ids]
        assert held(world, fault, 2)

        # When both are answered
        release(world, fault)
        assert {one.result() for one in outcomes} <= {"done", "postponed"}
    world.due_now()
    world.run_due()

    # Then there is one subscription
    assert len(world.read(Subscription)) == 1
    assert may_send(world, organization_id) is None


def test_refresh_changes_nothing_after_its_lease_was_taken_over(world):
    # Given a refresh that was answered while the subscription was active, and is slow to record
    customer = world.customer()
    begin = lambda: world.do(  # noqa: E731
        lambda session, _: subscription_refresh.begin_refresh(
            session, Provider.PAYPAL, customer.subscription_id, lease_seconds=60
        )
    )
    slow = begin()
    execute_sql(world, "UPDATE subscriptions SET look_lease_until = clock_timestamp()")

    # When another refresh ran meanwhile, and found the subscription suspended
    world.set_status_at_paypal(customer.subscription_id, "SUSPENDED")
    assert run(world, stage_refresh(world, customer.subscription_id)) == "done"
    facts = SubscriptionFacts(
        Provider.PAYPAL,
        customer.subscription_id,
        SubscriptionStatus.ACTIVE,
        customer.id,
        None,
        None,
    )
    assert (
        world.do(
            lambda session, now: subscriptions.record_refresh(
                session, slow, facts, now, grace_seconds=0
            )
        )
        is None
    )

    # Then the newer answer is kept
    assert world.subscription(customer.subscription_id).status == "suspended"


def test_answer_that_contradicts_a_newer_event_is_confirmed_before_use(world):
    # Given a closing event that is newer than the state that PayPal shows
    customer = world.customer()
    kind = "BILLING.SUBSCRIPTION.SUSPENDED"
    body = (
        f'{{"id":"WH-1","event_type":"{kind}","create_time":"2099-01-01T00:00:00Z",'
        f'"resource":{{"id":"{customer.subscription_id}"}}}}'
    )
    world.receive("WH-1", kind, body.encode())
    assert world.executor.execute("job_WH-1") == "done"
    job = max(jobs_of(world, "look_at_subscription"), key=lambda one: one.id)

    # When PayPal answers "active" each time
    waits = []
    for _ in range(3):
        assert run(world, job.id) == "postponed"
        waits.append((world.job(job.id).due_at - newest_attempt(world, job.id).started_at).seconds)
        assert may_send(world, customer.id) == "SUBSCRIPTION_INACTIVE"
        execute_sql(
            world,
            "UPDATE subscriptions SET contradicted_at = contradicted_at"
            f" - interval '{waits[-1] + 1} seconds'",
        )
        world.due_now()

    # Then the fourth answer is accepted, after waits of 5, 30 and 120 s, and Twilio was never
    # changed
    assert [round(wait / 5) * 5 for wait in waits] == [5, 30, 120]
    assert run(world, job.id) == "done"
    assert may_send(world, customer.id) is None
    assert [asked(world, sid, "POST") for sid in customer.sids] == [0, 0]


def test_event_that_arrives_during_an_opening_refresh_has_its_own_refresh(world):
    # Given a suspended customer, and a refresh that PayPal has already answered with "active"
    customer = world.customer()
    world.set_status_at_paypal(customer.subscription_id, "SUSPENDED")
    run(world, stage_refresh(world, customer.subscription_id))
    world.set_status_at_paypal(customer.subscription_id, "ACTIVE")
    began = world.do(
        lambda session, _: subscription_refresh.begin_refresh(
            session, Provider.PAYPAL, customer.subscription_id, lease_seconds=60
        )
    )
    facts = world.providers.paypal.get_subscription(customer.subscription_id)

    # When it is suspended again, and that event arrives before the answer is recorded. The event's
    # own time is no evidence, because PayPal's clock may be hours off
    world.set_status_at_paypal(customer.subscription_id, "SUSPENDED")
    kind = "BILLING.SUBSCRIPTION.SUSPENDED"
    body = (
        f'{{"id":"WH-2","event_type":"{kind}","create_time":"2020-01-01T00:00:00Z",'
        f'"resource":{{"id":"{customer.subscription_id}"}}}}'
    )
    world.receive("WH-2", kind, body.encode())
    assert world.executor.execute("job_WH-2") == "done"
    world.do(
        lambda session, now: subscriptions.record_refresh(
            session, began, facts, now, grace_seconds=0
        )
    )

    # Then the old answer opens nothing, and the event's own refresh confirms the suspension
    assert may_send(world, customer.id) == "SUBSCRIPTION_INACTIVE"
    world.run_due()
    assert world.subscription(customer.subscription_id).status == "suspended"
    assert [world.twilio_status(sid) for sid in customer.sids] == ["suspended", "suspended"]


def test_wrong_state_is_repaired_by_enforcement(world):
    # Given a customer whose campaigns and desired Twilio states were changed in the database
    customer = world.customer()
    execute_sql(world, "UPDATE brands SET twilio_desired = 'suspended'")
    execute_sql(
        world,
        "UPDATE campaigns SET status = 'paused', pause_reason = 'wallet_frozen', paused_at = now()"
        " WHERE id = %s",
        customer.campaign_ids[0],
    )

    # When the entitlement is enforced
    job_id = world.stage("enforce_organization", organization_id=customer.id)
    assert run(world, job_id) == "done"

    # Then everything follows the entitlement again
    assert [one.twilio_desired for one in world.brands(customer.id)] == ["active", "active"]
    assert world.campaign(customer.campaign_ids[0]).status == "running"
    assert world.campaign(customer.campaign_ids[2]).pause_reason == "manual_pause"


def test_enforcing_twice_and_at_once_stages_nothing(world):
    # Given a customer who may spend
    customer = world.customer()
    before = len(world.read(Job))

    # When several jobs enforce the entitlement at once
    ids = [world.stage("enforce_organization", organization_id=customer.id) for _ in range(4)]
    with another_thread() as start:
        outcomes = [start(run, world, job_id) for job_id in [*ids, *ids]]
        assert {one.result() for one in outcomes} <= {"done", "taken", "postponed"}
    world.due_now()
    world.run_due()

    # Then every job ran, and none staged another
    assert len(world.read(Job)) == before + len(ids)
    assert all(world.job(job_id).outcome == "done" for job_id in ids)


def test_enforcing_an_unknown_organization_is_refused(world):
    assert run(world, world.stage("enforce_organization", organization_id="org_no")) == "refused"
