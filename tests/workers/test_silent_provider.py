"""A silent provider never delays freezes and suspensions, however many calls wait."""

from __future__ import annotations

import uuid

import pytest

from base.enums import EndCause
from base.operators import Operator
from domain.calls import ending, reservations
from domain.calls.rates import Rate, set_rate
from domain.calls.rows import call_and_wallet
from tests.workers.scenes import clear_faults, eventually, want

#: One by one, so many waits would occupy two threads for longer than the limit.
CALLS, MANY, LIMIT_SECONDS = 120, 40, 60.0


def test_calls_that_cannot_be_ended_do_not_delay_a_suspension(world, processes):
    # Given a customer with many calls, and a Vapi that accepts requests and does not answer
    customer = world.customer(micros=100_000_000)
    ids = [f"c{number}" for number in range(CALLS)]

    def reserve(session, now):
        set_rate(session, customer.id, Rate(60_000, 1), operator=Operator("me", "test"), now=now)
        for call_id in ids:
            reservations.reserve_for_call(
                session,
                customer.id,
                call_id=call_id,
                provider_call_id=str(uuid.uuid4()),
                estimated_seconds=5,
                now=now,
            )

    def end(session, now):
        for call_id in ids:
            call, _ = call_and_wallet(session, customer.id, call_id)
            assert ending.decide_ending(session, call, EndCause.OPERATOR, now)

    world.do(reserve)
    world.sandbox.fault("vapi", "delay", seconds=60)
    processes.worker("safety", threads=2)
    processes.relay()
    # When all of the calls must end
    world.do(end)
    assert eventually(lambda: world.sandbox.requests(provider="vapi"))
    # Then freezing and suspending are done nevertheless
    brand = world.brands(customer.id)[0]
    for job_id in (
        world.stage("enforce_organization", organization_id=customer.id),
        want(world, brand.id, "suspended"),
    ):
        assert eventually(
            lambda job_id=job_id: world.job(job_id).done_at is not None, LIMIT_SECONDS
        )


def test_subscriptions_that_cannot_be_read_do_not_delay_a_suspension(world, processes):
    # Given many subscriptions to refresh, and a PayPal that accepts requests and does not answer
    customer = world.customer()
    world.sandbox.fault("paypal", "delay", seconds=60)
    processes.worker("safety", threads=2)
    processes.relay()
    for number in range(MANY):
        world.stage("look_at_subscription", provider="paypal", external_id=f"I-{number}")
    assert eventually(lambda: world.sandbox.requests(provider="paypal"))
    # When a subaccount is to be suspended, Then it is suspended nevertheless
    brand = world.brands(customer.id)[0]
    job_id = want(world, brand.id, "suspended")
    assert eventually(lambda: world.job(job_id).done_at is not None, LIMIT_SECONDS)


@pytest.mark.timeout(240)
def test_subaccounts_that_cannot_be_suspended_do_not_delay_a_freeze(world, processes):
    # Given many subaccounts to suspend, and a Twilio that accepts requests and does not answer
    customers = [world.customer() for _ in range(MANY)]
    world.sandbox.fault("twilio", "delay", seconds=60)
    processes.worker("safety", threads=2)
    processes.relay()
    jobs = [want(world, world.brands(one.id)[0].id, "suspended") for one in customers]
    assert eventually(lambda: world.sandbox.requests(provider="twilio"))
    # When an entitlement is enforced, Then that is done nevertheless
    job_id = world.stage("enforce_organization", organization_id=customers[0].id)
    assert eventually(lambda: world.job(job_id).done_at is not None, LIMIT_SECONDS)
    # And once Twilio answers, all are suspended
    clear_faults(world)
    assert eventually(lambda: all(world.job(one).outcome == "done" for one in jobs), LIMIT_SECONDS)
