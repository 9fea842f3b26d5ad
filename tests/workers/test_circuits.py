"""Jobs and circuit breakers: which jobs wait for a provider that is down."""

from __future__ import annotations

import pytest

from base.channels import ProviderChannel
from base.enums import Provider, Queue, RequestClass
from db.redis import circuit_states
from db.redis.circuits import CircuitPolicy, circuit_key
from db.redis.client import connect
from domain.jobs.staging import stage
from domain.jobs.types import JOB_TYPES, call_class_of
from providers import registry
from tests.db.redis.support import POLICY, circuits, holds_are_over, wait_is_over
from tests.support.world import World
from tests.workers.failing_processes import work_with_circuits
from tests.workers.scenes import (
    clear_faults,
    eventually,
    jobs_of,
    newest_attempt,
    pay,
    stage_refresh,
    want,
)

PAYMENTS = {"path_contains": "/v2/payments/"}


@pytest.fixture
def governed(world, redis_client):
    """The same world as a worker has it: its calls pass the shared circuit breakers."""
    providers = registry.build(world.settings, circuits(redis_client))
    yield World(world.owner_url, world.database, world.settings, world.sandbox, providers)
    providers.close()


@pytest.fixture
def money(world):
    return ProviderChannel(Provider.PAYPAL, world.settings.paypal_client_id, RequestClass.MONEY)


def asked(world) -> int:
    return len(world.sandbox.requests(provider="paypal", path_contains="/v2/payments/"))


def state_of(client, route: ProviderChannel):
    found = circuit_states.read_states(client, POLICY.window_seconds)
    return next(
        one for one in found if (one.provider, one.call_class) == (route.provider, route.call_class)
    )


@pytest.mark.parametrize(
    ("queue", "call_class"),
    [
        (Queue.SAFETY, RequestClass.SAFETY),
        (Queue.BILLING, RequestClass.MONEY),
        (Queue.MAINTENANCE, RequestClass.BULK),
        (Queue.CALLBACKS, RequestClass.BULK),
        (Queue.MESSAGING, RequestClass.BULK),
    ],
)
def test_queue_decides_the_class_of_its_jobs_calls(queue, call_class):
    assert call_class_of(str(queue)) is call_class


def test_job_waits_without_using_up_an_attempt_when_its_circuit_is_open(
    governed, organization, redis_client, money
):
    # Given a payment whose refresh failed until the circuit opened
    capture = pay(governed, organization)
    governed.sandbox.fault("paypal", "status", status=500, match=PAYMENTS)
    first = stage_refresh(governed, capture)
    outcomes = [governed.executor.execute(first)]
    assert state_of(redis_client, money).state == "open"
    before, failures = asked(governed), governed.job(first).failures

    # When it is due again, and so are others
    governed.due_now()
    others = [stage_refresh(governed, capture) for _ in range(3)]
    outcomes = [governed.executor.execute(job_id) for job_id in (first, *others)]

    # Then all wait for the next trial, nothing is sent, and no attempt is used up
    assert outcomes == ["postponed"] * 4
    assert asked(governed) == before
    for job_id in (first, *others):
        job = governed.job(job_id)
        assert job.failures == (failures if job_id == first else 0)
        assert (job.due_at - governed.database.now()).total_seconds() > POLICY.open_seconds - 30
        assert "the circuit is open" in newest_attempt(governed, job_id).error


def test_one_job_is_the_trial_after_an_outage_and_others_follow(
    governed, organization, redis_client, money
):
    # Given an outage that opened the circuit, and jobs that wait
    capture = pay(governed, organization)
    governed.sandbox.fault("paypal", "status", status=503, match=PAYMENTS)
    jobs = [stage_refresh(governed, capture) for _ in range(8)]
    for job_id in jobs:
        governed.executor.execute(job_id)
    before = asked(governed)
    assert before == POLICY.failures

    # When all of them are due at once, and the provider is still down
    wait_is_over(redis_client, money)
    governed.due_now()
    for job_id in jobs:
        governed.executor.execute(job_id)

    # Then they sent one request in all
    assert asked(governed) == before + 1
    assert state_of(redis_client, money).openings == 2

    # And when the provider is back, all are done
    clear_faults(governed)
    wait_is_over(redis_client, money)
    governed.due_now()
    assert [governed.executor.execute(job_id) for job_id in jobs] == ["done"] * 8
    assert governed.wallet(organization).balance_micros == 10_000_000
    assert state_of(redis_client, money).state == "closed"


def test_suspension_goes_on_while_every_circuit_is_open(governed, redis_client):
    # Given a customer, and circuits of Twilio that are open for every class
    customer = governed.customer()
    account = governed.settings.twilio_account_sid
    fleet = circuits(redis_client)
    for of in RequestClass:
        route = ProviderChannel(Provider.TWILIO, account, of)
        for _ in range(POLICY.failures):
            fleet.leave(route, "", "failed", 60)
        assert state_of(redis_client, route).state == "open"

    # When its subaccount is to be suspended
    job_id = want(governed, customer.brand_ids[0], "suspended")
    assert governed.executor.execute(job_id) == "done"

    # Then it is suspended, and the answer closed the circuit of safety calls alone
    assert governed.twilio_status(customer.sids[0]) == "suspended"
    states = {
        of: state_of(redis_client, ProviderChannel(Provider.TWILIO, account, of))
        for of in RequestClass
    }
    assert [states[of].state for of in RequestClass] == ["closed", "open", "open"]


def test_safety_refresh_is_sent_while_a_money_refresh_waits(
    governed, organization, redis_client, money
):
    # Given an open circuit for money
    capture = pay(governed, organization)
    fleet = circuits(redis_client)
    for _ in range(POLICY.failures):
        fleet.leave(money, "", "failed", 0)
    arguments = {"provider": "paypal", "kind": "capture", "external_id": capture}
    # When the same refresh is staged in both queues
    of_safety = governed.do(
        lambda session, _: stage(
            session, JOB_TYPES["look_at_payment"], None, queue=Queue.SAFETY, **arguments
        )
    )
    of_money = stage_refresh(governed, capture)
    # Then the queue of each job decides its class
    assert governed.executor.execute(of_money) == "postponed"
    assert governed.executor.execute(of_safety) == "done"


def test_one_workers_429_holds_back_the_account_for_all(governed, organization, redis_client):
    # Given a provider that answers one job with 429 and a wait
    capture = pay(governed, organization)
    governed.sandbox.fault(
        "paypal", "status", status=429, headers={"Retry-After": "40"}, match=PAYMENTS, times=1
    )
    jobs = [stage_refresh(governed, capture) for _ in range(3)]
    assert governed.executor.execute(jobs[0]) == "failed"

    # When the others run, Then nothing is sent, and they wait as long
    assert [governed.executor.execute(job_id) for job_id in jobs[1:]] == ["postponed"] * 2
    assert asked(governed) == 1
    for job_id in jobs:
        assert (governed.job(job_id).due_at - governed.database.now()).total_seconds() > 15

    # And afterwards all are done
    holds_are_over(redis_client)
    governed.due_now()
    assert [governed.executor.execute(job_id) for job_id in jobs] == ["done"] * 3


def test_money_jobs_run_and_bulk_jobs_wait_while_redis_is_away(world, organization):
    # Given a worker that cannot reach Redis
    away = circuits(connect("unix:///nowhere/valkey.sock?db=0", timeout_seconds=0.2))
    providers = registry.build(world.settings, away)
    blind = World(world.owner_url, world.database, world.settings, world.sandbox, providers)
    arguments = {"provider": "paypal", "kind": "capture", "external_id": pay(blind, organization)}
    jobs = [
        blind.do(
            lambda session, _, queue=queue: stage(
                session, JOB_TYPES["look_at_payment"], None, queue=queue, **arguments
            )
        )
        for queue in (Queue.SAFETY, Queue.BILLING, Queue.MAINTENANCE)
    ]
    # When jobs of each class run
    outcomes = [blind.executor.execute(job_id) for job_id in jobs]
    providers.close()
    # Then bulk waits, without using up an attempt
    assert outcomes == ["done", "done", "postponed"]
    assert blind.job(jobs[2]).failures == 0


def test_two_workers_see_one_circuit(world, processes, organization, redis_client, money):
    # Given a provider that is down, and two worker processes with many payments to refresh
    capture = pay(world, organization)
    fault = world.sandbox.fault("paypal", "status", status=500, match=PAYMENTS)
    jobs = [stage_refresh(world, capture) for _ in range(30)]
    policy = CircuitPolicy(
        failures=4, calls=8, window_seconds=60, open_seconds=3600, open_seconds_max=3600
    )
    for _ in range(2):
        processes.call(work_with_circuits, policy).wait_for("worker_started")
    processes.relay()

    # When they have tried all of them
    def all_tried() -> bool:
        return all(job.attempt for job in jobs_of(world, "look_at_payment"))

    assert eventually(all_tried, 60)
    assert eventually(lambda: not any(job.lease_until for job in jobs_of(world, "look_at_payment")))

    # Then they sent few requests in all: those that opened the circuit, and those already on their
    # way
    assert 4 <= world.sandbox.fault_now(fault)["hits"] <= 4 + 3
    assert state_of(redis_client, money).state == "open"

    # And when the provider is back, every payment is refreshed, and the money is credited once
    clear_faults(world)
    wait_is_over(redis_client, money)

    def all_done() -> bool:
        world.due_now()
        return all(job.outcome == "done" for job in jobs_of(world, "look_at_payment"))

    assert eventually(all_done, 60)
    assert len(jobs) == 30
    assert not redis_client.exists(circuit_key(money))
    assert world.wallet(organization).balance_micros == 10_000_000
