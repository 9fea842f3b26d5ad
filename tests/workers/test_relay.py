"""The relay repeats lost notifications, also when Redis was emptied or away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
import redis

from db.address import driver_url
from db.engine import Database
from db.models import Job
from db.redis.client import EPOCH_KEY, NAMESPACE, connect, run_id
from local.embedded import EmbeddedServers
from tests.support.servers import server_folder
from tests.workers.failing_processes import die_between_claim_and_push
from tests.workers.scenes import eventually, execute_sql, notified, notify
from workers.relay import Relay


@pytest.fixture
def relay(world, redis_client):
    return Relay(world.database, redis_client)


def stage(world, organization_id, count=1):
    return [
        world.stage("enforce_organization", organization_id=organization_id) for _ in range(count)
    ]


def all_done(world, job_ids):
    return all(world.job(job_id).done_at is not None for job_id in job_ids)


def test_relay_notifies_a_job_that_was_never_notified(world, processes, organization):
    # Given a worker, and a job whose notification was lost
    processes.worker("safety")
    job_ids = stage(world, organization)

    # When a relay runs, Then the job runs
    processes.relay()
    assert eventually(lambda: all_done(world, job_ids))


def test_relay_notifies_due_jobs_and_waits_longer_each_time(
    world, relay, redis_client, organization
):
    # Given one job that is due and one that is not
    first, second = (world.stage("decide_top_up", organization_id=organization) for _ in range(2))
    relay.run_once()
    redis_client.delete(f"{NAMESPACE}:billing")
    execute_sql(world, "UPDATE jobs SET ring_at = clock_timestamp() WHERE id = %s", first)

    # When the relay runs, Then it notifies of the due job
    assert relay.run_once() == 1
    assert notified(redis_client, "billing") == [first]
    assert world.job(second).rings == 0

    # And it repeats the notification only later, and after a longer wait each time
    assert relay.run_once() == 0
    waits = []
    for _ in range(8):
        job = world.job(first)
        waits.append(round((job.ring_at - world.database.now()).total_seconds() / 15))
        execute_sql(world, "UPDATE jobs SET ring_at = clock_timestamp() WHERE id = %s", first)
        relay.run_once()
    assert waits == [1, 2, 4, 8, 16, 32, 40, 40]


def test_finished_or_dead_job_is_never_notified(world, relay, redis_client, organization):
    done, dead = stage(world, organization, 2)
    assert world.executor.execute(done) == "done"
    execute_sql(
        world, "UPDATE jobs SET dead_at = clock_timestamp(), ring_at = NULL WHERE id = %s", dead
    )

    assert relay.run_once() == 0
    assert notified(redis_client) == []


def test_waiting_jobs_are_notified_again_when_redis_was_emptied(
    world, processes, redis_client, organization
):
    # Given a relay, and jobs that were notified but have no worker yet
    processes.relay()
    job_ids = stage(world, organization, 20)
    world.due_now()
    assert eventually(lambda: notified(redis_client) == sorted(job_ids))

    # When Redis is emptied, Then they are notified again soon, long before their next notification
    redis_client.flushall()
    assert eventually(lambda: notified(redis_client) == sorted(job_ids))
    assert eventually(lambda: redis_client.get(EPOCH_KEY) is not None)

    # And every one of them runs
    processes.worker("safety")
    assert eventually(lambda: all_done(world, job_ids))


def test_waiting_jobs_are_notified_again_at_another_redis(world, organization, relay):
    # Given a notified job, and a Redis that has lost its message: restarted from an older snapshot,
    # or replaced by a replica that was behind
    (job_id,) = stage(world, organization)
    world.due_now()
    client = relay._client
    relay.run_once()
    assert notified(client) == [job_id]
    client.delete(*client.keys(f"{NAMESPACE}:*"))
    assert relay.run_once() == 0
    client.set(EPOCH_KEY, "of the one before")
    # When the relay runs, Then it notifies long before the job's next notification
    assert relay.run_once() == 1
    assert notified(client) == [job_id]
    assert client.get(EPOCH_KEY) == run_id(client).encode()


def test_alternating_redis_servers_repeat_notifications_once_a_minute(world, organization, relay):
    # Given a notified job, and servers behind a proxy that answer in turn
    stage(world, organization)
    world.due_now()
    assert relay.run_once() == 1
    notified_at_each_pass = []
    for _ in range(4):
        relay._client.set(EPOCH_KEY, "of the other")
        notified_at_each_pass.append(relay.run_once())
    # Then the relay notifies again because of that once a minute
    assert notified_at_each_pass == [1, 0, 0, 0]


def test_emptied_redis_without_a_run_id_is_noticed(
    world, organization, relay, redis_client, monkeypatch
):
    def refuse(section):
        raise redis.exceptions.NoPermissionError

    monkeypatch.setattr(relay._client, "info", refuse)
    (job_id,) = stage(world, organization)
    world.due_now()
    assert [relay.run_once(), relay.run_once()] == [1, 0]
    redis_client.flushall()
    assert relay.run_once() == 1
    assert notified(redis_client) == [job_id]


def test_job_that_runs_long_does_not_keep_redis_from_being_refilled(
    world, relay, redis_client, organization, urls
):
    # Given two notified jobs, one of which runs in its worker's transaction
    running, waiting = stage(world, organization, 2)
    world.due_now()
    relay.run_once()
    with psycopg.connect(driver_url(urls.app_url)) as worker:
        worker.execute("SELECT 1 FROM jobs WHERE id = %s FOR NO KEY UPDATE", [running])

        # When Redis is emptied
        redis_client.flushall()
        relay.run_once()

        # Then the other one is notified again
        assert notified(redis_client) == [waiting]


def test_leased_and_postponed_jobs_are_not_notified_after_redis_is_emptied(
    world, relay, redis_client, organization
):
    # Given a leased job and a postponed one
    leased, postponed = stage(world, organization, 2)
    execute_sql(
        world,
        "UPDATE jobs SET rings = 1, lease_until = clock_timestamp() + interval '1 hour',"
        " ring_at = clock_timestamp() + interval '1 hour' WHERE id = %s",
        leased,
    )
    execute_sql(
        world,
        "UPDATE jobs SET due_at = clock_timestamp() + interval '1 hour',"
        " ring_at = clock_timestamp() + interval '1 hour' WHERE id = %s",
        postponed,
    )

    redis_client.flushall()
    assert relay.run_once() == 0
    assert notified(redis_client) == []


def test_jobs_are_notified_after_a_redis_outage_and_none_is_lost(world, organization):
    # Given a stopped Valkey of its own, and a relay that runs meanwhile
    with server_folder() as folder:
        servers = EmbeddedServers(folder / "state", fast=True, postgres=False)
        url = servers.start().redis_url
        client = connect(url)
        relay = Relay(world.database, client)
        assert relay.run_once() == 0
        servers.stop()
        job_ids = stage(world, organization, 3)
        world.due_now()

        # When the relay cannot notify, Then it raises the error, and no job counts as notified
        with pytest.raises(redis.RedisError):
            relay.run_once()
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(relay.run_until, stop)
            assert {world.job(one).rings for one in job_ids} == {0}

            # Then, when Redis is back, all are notified
            servers = EmbeddedServers(folder / "state", fast=True, postgres=False)
            client_back = connect(servers.start().redis_url)
            assert eventually(lambda: notified(client_back) == sorted(job_ids))
            stop.set()
            running.result()
        client_back.close()
        client.close()
        servers.stop()


def test_due_jobs_are_notified_when_the_schedules_cannot_be_read(
    world, urls, redis_client, organization, relay
):
    # Given schedules that are locked for longer than any transaction waits
    (job_id,) = stage(world, organization)
    stop = threading.Event()
    with psycopg.connect(driver_url(urls.owner_url)) as holder, ThreadPoolExecutor() as pool:
        holder.execute("LOCK TABLE schedules IN ACCESS EXCLUSIVE MODE")
        running = pool.submit(relay.run_until, stop)
        try:
            # Then jobs are notified nevertheless
            assert eventually(lambda: job_id in notified(redis_client))
        finally:
            stop.set()
            holder.rollback()
            running.result(timeout=10)


def test_failed_notification_is_repeated(world, redis_client, organization, relay):
    # Given a Redis that answers but accepts no writes
    (job_id,) = stage(world, organization)
    relay.run_once()
    world.due_now()
    redis_client.config_set("maxmemory", 1)
    try:
        # When the relay cannot push
        with pytest.raises(redis.RedisError):
            relay.run_once()
    finally:
        redis_client.config_set("maxmemory", 0)

    # Then the job is due for notification in one second instead of fifteen
    job = world.job(job_id)
    assert job.rings == 0
    assert (job.ring_at - world.database.now()).total_seconds() <= 1


def test_two_relays_notify_each_job_once(world, urls, redis_client, organization):
    # Given many due jobs
    redis_client.set(EPOCH_KEY, run_id(redis_client))
    job_ids = stage(world, organization, 60)
    world.due_now()
    together = threading.Barrier(4)

    def work():
        database = Database(urls.app_url, name="relay", pool_size=1)
        with closing(connect(urls.redis_url)) as client:
            together.wait()
            count = Relay(database, client).run_once()
        database.close()
        return count

    # When four relays run at the same moment
    with ThreadPoolExecutor(4) as pool:
        counts = [one.result() for one in [pool.submit(work) for _ in range(4)]]

    # Then each job is notified, by one of them
    assert sum(counts) == 60
    assert notified(redis_client) == sorted(job_ids)


def test_relay_killed_between_its_claim_and_its_push_loses_nothing(world, processes, organization):
    # Given a relay that is killed after it marked jobs as notified, and before it pushed them
    job_ids = stage(world, organization, 3)
    world.due_now()
    assert processes.call(die_between_claim_and_push).ended() == -9
    assert {world.job(job_id).rings for job_id in job_ids} == {1}

    # When the next notification is due
    processes.worker("safety")
    processes.relay()
    world.due_now()

    # Then another relay notifies of them
    assert eventually(lambda: all_done(world, job_ids))


def test_job_that_is_notified_twice_runs_once(world, processes, redis_client, organization):
    # Given two notifications of one job
    (job_id,) = stage(world, organization)
    processes.worker("safety")
    notify(world, redis_client, job_id, job_id)

    # When both were fetched, Then the job ran once
    assert eventually(lambda: notified(redis_client) == [] and all_done(world, [job_id]))
    assert world.read(Job, id=job_id)[0].attempt == 1


def test_urgent_jobs_do_not_wait_behind_a_backlog(
    world, relay, redis_client, organization, monkeypatch
):
    # Given more old callbacks than fit into one batch, and then a job of the safety queue
    monkeypatch.setattr("workers.relay._BATCH", 3)
    stage(world, organization, 9)
    execute_sql(world, "UPDATE jobs SET queue = 'callbacks'")
    (urgent,) = stage(world, organization)
    world.due_now()
    execute_sql(
        world, "UPDATE jobs SET ring_at = ring_at - interval '1 hour' WHERE queue = 'callbacks'"
    )
    # When the relay runs once, Then it notifies of the urgent job, and of a batch of the others
    relay.run_once()
    assert notified(redis_client) == [urgent]
    assert len(notified(redis_client, "callbacks")) == 3
    # And when Redis was emptied, the urgent job is in the first batch again
    monkeypatch.setattr("workers.relay._AGAIN_BATCH", 3)
    redis_client.flushdb()
    relay.run_once()
    assert notified(redis_client) == [urgent]
    assert len(notified(redis_client, "callbacks")) == 3
