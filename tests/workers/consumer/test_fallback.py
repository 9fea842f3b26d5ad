"""Safety jobs run from PostgreSQL while Redis accepts no work."""

from __future__ import annotations

import contextlib
import threading
import time

import psycopg
import pytest
from sqlalchemy import event

from db.address import driver_url
from db.models import JobAttempt, WalletFreeze
from db.redis.client import connect
from local.ports import free_ports
from tests.support.killable_redis import killable_redis
from tests.workers.scenes import eventually, execute_sql, held, notified, notify, release, want
from workers.consumer.fallback import (
    OWN_THREADS,
    PROVIDER_THREADS,
    THREADS,
    Fallback,
    Limits,
    Outage,
)
from workers.consumer.probe import RedisProbe
from workers.process import SafetyThreads

#: An address at which there is no Redis.
NOWHERE = "unix:///nowhere/valkey.sock?db=0"


@pytest.fixture
def own_redis():
    with killable_redis() as server:
        yield server


@pytest.fixture
def start_fallback(world):
    """Start a fallback on a Redis; it is stopped after the test."""
    with contextlib.ExitStack() as stack:

        def start(redis_url):
            limits = Limits(probe_seconds=0.02, poll_seconds=0.02, after_seconds=0.1)
            made = Fallback(
                world.database, RedisProbe(redis_url, "test"), world.executor.execute, limits
            )
            made.start()
            stack.callback(lambda: made.stop(20))
            return made

        yield start


def freezes(world, organization_id):
    """List the reasons of the wallet's active freezes."""
    rows = world.read(WalletFreeze, organization_id=organization_id, lifted_at=None)
    return [one.reason for one in rows]


def close_subscription(world, customer):
    """Have PayPal suspend the subscription, and the ingress accept the event."""
    path = f"/paypal/subscriptions/{customer.subscription_id}/status"
    (delivery,) = world.sandbox.control("POST", path, {"status": "SUSPENDED"})["deliveries"]
    assert delivery["status_code"] == 200, delivery


@pytest.mark.parametrize("state", ["stopped", "killed", "full"])
def test_closing_event_freezes_while_redis_takes_no_work(world, processes, own_redis, state):
    # Given a customer, an ingress, a safety worker and a relay
    customer = world.customer()
    processes.environment["REDIS_URL"] = own_redis.url
    (port,) = free_ports(1)
    processes.ingress(port)
    world.sandbox.control("POST", "/target", {"url": f"http://127.0.0.1:{port}"})
    worker = processes.worker("safety")
    processes.relay()

    # When Redis fails, and an event arrives that closes the only subscription
    getattr(own_redis, f"make_{state}")()
    close_subscription(world, customer)

    # Then the wallet is frozen although Redis stays away
    assert eventually(lambda: freezes(world, customer.id)), worker.output()
    if state == "killed":
        return

    # And once Redis is back, its old messages change nothing, and jobs use Redis again
    own_redis.mend()
    later = world.stage("enforce_organization", organization_id=customer.id)
    with connect(own_redis.url) as client:
        notify(world, client, later)
        assert eventually(lambda: world.job(later).outcome == "done")
        assert eventually(lambda: notified(client) == [])
    assert len(freezes(world, customer.id)) == 1


def test_job_whose_message_is_in_stopped_redis_runs_once(world, processes, own_redis, organization):
    # Given jobs whose messages are in a Redis that stops before a worker starts
    jobs = [world.stage("enforce_organization", organization_id=organization) for _ in range(8)]
    with connect(own_redis.url) as client:
        notify(world, client, *jobs, *jobs)
        own_redis.make_stopped()
        worker = processes.worker("safety", REDIS_URL=own_redis.url)

        # When the worker has run them without Redis, and Redis is back
        assert eventually(lambda: all(world.job(one).done_at for one in jobs)), worker.output()
        own_redis.mend()
        assert eventually(lambda: notified(client) == [])

        # Then each job had one attempt
        assert eventually(lambda: "redis_takes_work_again" in worker.output())
    for job_id in jobs:
        assert [one.outcome for one in world.read(JobAttempt, job_id=job_id)] == ["done"]


def test_silent_provider_does_not_keep_fallback_from_freezing(world, start_fallback):
    # Given a fallback whose threads for provider calls all wait for Twilio, and as many more jobs
    # for Twilio as it has other threads
    customers = [world.customer() for _ in range(THREADS // 2)]
    fault = world.sandbox.fault("twilio", "hold", times=THREADS)
    for customer in customers:
        for brand_id in customer.brand_ids:
            want(world, brand_id, "suspended")
    start_fallback(NOWHERE)
    assert held(world, fault, PROVIDER_THREADS)

    # When a job that needs only our database is due, Then it runs nevertheless
    own = world.stage("enforce_organization", organization_id=customers[0].id)
    assert eventually(lambda: world.job(own).outcome == "done")
    assert world.sandbox.fault_now(fault)["held"] == PROVIDER_THREADS
    release(world, fault)


def test_outage_ends_once_redis_has_worked_for_a_while():
    # Given a Redis that works and then fails
    outage = Outage(3.0)
    assert not outage.note(True, 0.0)
    assert outage.note(False, 1.0)
    assert outage.away_since == 1.0
    # When it works again, Then the outage lasts 3 seconds longer, anew after each failed probe
    assert [outage.note(True, now) for now in (2.0, 4.9)] == [True, True]
    assert outage.note(False, 5.0)
    assert [outage.note(True, now) for now in (6.0, 8.9)] == [True, True]
    assert outage.away_since == 1.0
    assert not outage.note(True, 9.0)
    assert outage.away_since is None
    # And the next outage begins with its own first failed probe
    assert outage.note(False, 10.0)
    assert outage.away_since == 10.0
    assert outage.note(True, 11.0)


def own_fallback(world, execute, poll_seconds):
    """Build a fallback without Redis that runs due jobs with `execute`."""
    limits = Limits(probe_seconds=0.02, poll_seconds=poll_seconds, after_seconds=0.1)
    return Fallback(world.database, RedisProbe(NOWHERE, "test"), execute, limits)


def test_fallback_asks_postgresql_once_in_a_while_when_nothing_is_due(world):
    # Given a fallback of eight threads and no job
    asked = []
    event.listen(world.database.engine, "checkout", lambda *_: asked.append(time.monotonic()))
    fallback = own_fallback(world, world.executor.execute, 0.2)
    fallback.start()
    assert eventually(lambda: len(asked) >= 10)
    assert fallback.stop(20) == 0
    # Then each of the two kinds of job was queried by one thread at a time, with a pause after it
    assert asked[9] - asked[0] >= 4 * 0.2


@pytest.mark.parametrize("outcome", ["taken", "unknown"])
def test_fallback_pauses_when_a_job_cannot_be_run(world, outcome):
    # Given a due job that another worker always has, or whose outcome the database cannot report
    ran = []

    def execute(_job_id):
        ran.append(time.monotonic())
        return outcome

    world.stage("enforce_organization", organization_id="org_none")
    fallback = own_fallback(world, execute, 0.2)
    fallback.start()
    assert eventually(lambda: len(ran) >= 3 * OWN_THREADS)
    assert fallback.stop(20) == 0
    # Then each of the four threads paused after each run
    assert ran[3 * OWN_THREADS - 1] - ran[0] >= 2 * 0.2


def test_fallback_goes_on_when_running_a_job_fails(world):
    # Given a fallback whose runs fail with an unexpected error
    ran = []

    def execute(job_id):
        ran.append(job_id)
        raise RuntimeError("out of threads")

    world.stage("enforce_organization", organization_id="org_none")
    fallback = own_fallback(world, execute, 0.01)
    fallback.start()
    # Then no thread ends because of it
    assert eventually(lambda: len(ran) >= 3 * OWN_THREADS)
    assert fallback.stop(20) == 0


def test_fallback_that_stops_takes_no_job(world, own_redis):
    # Given a fallback that waits for an outage of Redis, and a due job
    job_id = world.stage("enforce_organization", organization_id="org_none")
    fallback = Fallback(world.database, RedisProbe(own_redis.url, "test"), world.executor.execute)
    fallback.start()
    with connect(own_redis.url) as client:
        assert eventually(lambda: client.get("holdfast:probe:test") is not None)
    # When the fallback is stopped, Then every thread ends, and none has taken the job
    assert fallback.stop(20) == 0
    assert (world.job(job_id).rings, world.job(job_id).attempt) == (0, 0)


def test_fallback_counts_what_still_runs_when_stopping_is_hurried(world):
    # Given a job that is running
    running, go_on = threading.Event(), threading.Event()

    def execute(_job_id):
        running.set()
        go_on.wait(20)
        return "done"

    world.stage("enforce_organization", organization_id="org_none")
    fallback = own_fallback(world, execute, 0.02)
    fallback.start()
    assert running.wait(20)
    # When the stop is hurried, Then it does not wait, and returns how many threads still run
    assert fallback.stop(60, hurry=lambda: True) >= 1
    go_on.set()
    assert fallback.stop(20) == 0


def test_fallback_asks_again_soon_when_a_take_is_never_answered(world, way):
    # Given a worker without Redis that takes jobs through a connection of its own
    changed = {"database_url": way.url, "redis_url": NOWHERE}
    settings = world.settings.model_copy(update=changed)
    safety = SafetyThreads(settings, world.database, world.executor, "test")
    first = world.stage("enforce_organization", organization_id="org_none")
    assert eventually(lambda: world.job(first).outcome == "refused")
    # When the answers to takes of both kinds are lost, and PostgreSQL answers only new connections
    way.deaf.set()
    assert eventually(lambda: way.silent_count >= 2)
    way.deaf.clear()
    # Then a job runs long before the time limit of the longest job
    later = world.stage("enforce_organization", organization_id="org_none")
    assert eventually(lambda: world.job(later).outcome == "refused")
    safety.stop_taking()
    assert safety.stop(20, hurry=lambda: False) == 0


def test_fallback_takes_nothing_while_redis_takes_work(world, start_fallback, own_redis):
    # Given a due job that was never notified, and a Redis that works
    job_id = world.stage("enforce_organization", organization_id="org_none")
    fallback = start_fallback(own_redis.url)
    probes = set()

    def probed():
        with connect(own_redis.url) as client:
            probes.add(client.get("holdfast:probe:test"))
        return len(probes) > 10

    # When Redis was probed several times, Then the job is left to the relay
    assert eventually(probed)
    assert (world.job(job_id).rings, world.job(job_id).attempt) == (0, 0)
    assert fallback.away_seconds is None

    # Until Redis fails; and once it works again, the outage ends
    own_redis.make_full()
    assert eventually(lambda: world.job(job_id).outcome == "refused")
    assert fallback.away_seconds is not None
    own_redis.mend()
    assert eventually(lambda: fallback.away_seconds is None)

    # And then jobs are left to the relay again
    probes.clear()
    assert eventually(probed)
    later = world.stage("enforce_organization", organization_id="org_none")
    probes.clear()
    assert eventually(probed)
    assert (world.job(later).rings, world.job(later).attempt) == (0, 0)


def test_fallback_takes_jobs_again_when_redis_was_emptied(world, start_fallback, own_redis):
    # Given a Redis that works, and then loses a job's message with all other data
    job_id = world.stage("enforce_organization", organization_id="org_none")
    fallback = start_fallback(own_redis.url)
    with connect(own_redis.url) as client:
        assert eventually(lambda: client.get("holdfast:probe:test") is not None)
        client.flushall()
    # Then the job runs before any relay notifies of it
    assert eventually(lambda: world.job(job_id).outcome == "refused")
    assert eventually(lambda: fallback.away_seconds is None)


def test_attempt_counts_when_job_was_taken_often_without_an_end(world, start_fallback):
    # Given a job that was taken several times and never ended, as one that kills its workers
    job_id = world.stage("enforce_organization", organization_id="org_none")
    execute_sql(world, "UPDATE jobs SET rings = 4 WHERE id = %s", job_id)
    with psycopg.connect(driver_url(world.settings.database_url)) as holder:
        holder.execute("LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        start_fallback(NOWHERE)
        # When it runs, Then its attempt is committed before its effect: other connections see its
        # lease
        assert eventually(lambda: world.job(job_id).lease_until is not None)


def test_fallback_goes_on_when_its_probe_fails(world, start_fallback, monkeypatch):
    # Given a probe that fails with an unexpected error
    def fail(_probe):
        raise RuntimeError("out of threads")

    monkeypatch.setattr(RedisProbe, "takes_work", fail)
    start_fallback(NOWHERE)
    # When a job is due, Then it runs
    job_id = world.stage("enforce_organization", organization_id="org_none")
    assert eventually(lambda: world.job(job_id).outcome == "refused")
