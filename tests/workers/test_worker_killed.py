"""Workers are killed in the middle of their work, and the work is still done once."""

from __future__ import annotations

import psycopg
import redis

from db.address import driver_url
from db.models import Job, WalletEntry, WalletFreeze
from db.redis.client import NAMESPACE
from tests.support.world import make_organization
from tests.workers.scenes import (
    eventually,
    execute_sql,
    jobs_of,
    newest_attempt,
    notify,
    pay,
    stage_refresh,
)


def is_waiting(world):
    """Return whether a worker's transaction waits for a lock."""
    with psycopg.connect(driver_url(world.settings.database_url), autocommit=True) as watch:
        row = watch.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock'"
        ).fetchone()
    return row[0] > 0


def test_job_whose_worker_is_killed_runs_again_and_takes_effect_once(
    world, processes, redis_client, urls
):
    # Given an organization whose row is locked, and a worker in the middle of its job
    organization_id = make_organization(world.database, micros=1_000_000)
    job_id = world.stage("enforce_organization", organization_id=organization_id)
    with psycopg.connect(driver_url(urls.owner_url)) as holder:
        holder.execute("SELECT 1 FROM organizations FOR UPDATE")
        victim = processes.worker("safety")
        notify(world, redis_client, job_id)
        assert eventually(lambda: is_waiting(world))

        # When the worker is killed
        victim.kill()
    assert world.job(job_id).done_at is None

    # Then the job runs in another worker, and takes effect once
    processes.relay()
    processes.worker("safety")
    world.due_now()
    assert eventually(lambda: world.job(job_id).done_at is not None)
    freezes = world.read(WalletFreeze, organization_id=organization_id)
    assert [freeze.reason for freeze in freezes] == ["subscription_inactive"]
    entries = world.read(WalletEntry, organization_id=organization_id)
    assert [entry.kind for entry in entries].count("freeze") <= 1
    assert str(victim.pid) not in newest_attempt(world, job_id).worker


def test_provider_job_of_a_killed_worker_runs_again_after_its_lease(world, processes, redis_client):
    # Given a worker that waits for PayPal's answer about a payment
    organization_id = make_organization(world.database)
    capture_id = pay(world, organization_id)
    fault = world.sandbox.fault("paypal", "hold", match={"path_contains": capture_id}, times=1)
    job_id = stage_refresh(world, capture_id)
    victim = processes.worker("billing")
    notify(world, redis_client, job_id)
    assert eventually(lambda: world.sandbox.fault_now(fault)["held"] == 1)

    # When it is killed, Then the job stays claimed until its lease is over
    victim.kill()
    claimed = world.job(job_id)
    assert claimed.attempt == 1
    assert claimed.lease_until is not None and claimed.ring_at is not None
    assert world.executor.execute(job_id) == "taken"

    # And then the job runs again, and the money is credited once
    world.due_now()
    assert world.executor.execute(job_id) == "done"
    assert world.wallet(organization_id).balance_micros == 10_000_000
    assert (world.job(job_id).attempt, world.job(job_id).failures) == (2, 1)


def test_fetched_jobs_of_a_killed_worker_are_not_lost(world, processes, redis_client, urls):
    # Given a worker of two threads that is stuck with two of four jobs and has fetched no more
    ids = [make_organization(world.database, micros=1) for _ in range(4)]
    job_ids = [world.stage("enforce_organization", organization_id=one) for one in ids]
    with psycopg.connect(driver_url(urls.owner_url)) as holder:
        holder.execute("SELECT 1 FROM organizations FOR UPDATE")
        victim = processes.worker("safety", threads=2)
        notify(world, redis_client, *job_ids)
        assert eventually(lambda: unacknowledged(redis_client) >= 2)

        # When it is killed
        victim.kill()

    # Then another worker does all four, after the relay notified of them
    processes.worker("safety")
    processes.relay()
    world.due_now()
    assert eventually(lambda: all(world.job(one).done_at for one in job_ids))
    assert {job.outcome for job in jobs_of(world, "enforce_organization")} == {"done"}


def unacknowledged(client: redis.Redis) -> int:
    """Count the messages that workers have fetched and not acknowledged."""
    keys = client.keys(f"{NAMESPACE}:__acks__.*.safety")
    return sum(client.scard(key) for key in keys)


def test_job_that_kills_its_worker_does_not_affect_other_jobs(world, processes, redis_client):
    # Given a job whose worker died long ago
    organization_id = make_organization(world.database)
    abandoned = world.stage("enforce_organization", organization_id=organization_id)
    execute_sql(
        world,
        "UPDATE jobs SET attempt = 1, worker = 'dead:1', rings = 0,"
        " lease_until = clock_timestamp(), ring_at = clock_timestamp() WHERE id = %s",
        abandoned,
    )

    # When a relay and a worker start
    processes.worker("safety")
    processes.relay()

    # Then the job is taken over, and the failed attempt is counted
    assert eventually(lambda: world.job(abandoned).done_at is not None)
    job = world.read(Job, id=abandoned)[0]
    assert (job.attempt, job.outcome) == (2, "done")
