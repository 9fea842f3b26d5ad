"""How workers stop, what they leave to others, and that nothing is dead-lettered."""

from __future__ import annotations

import threading

import psycopg
import pytest
import redis
from dramatiq.worker import Worker

from base.enums import Queue
from db.address import driver_url
from db.redis.client import NAMESPACE
from tests.workers.failing_processes import work_as_an_older_version, work_without_end
from tests.workers.scenes import (
    eventually,
    execute_sql,
    fetched,
    held,
    newest_attempt,
    notified,
    notify,
    pay,
    release,
    stage_refresh,
)
from workers.process import build_broker
from workers.shutdown import stop_worker


@pytest.fixture
def capture(world, organization):
    """A payment that PayPal has and we do not know yet."""
    return pay(world, organization)


def hold(world, capture):
    """Make PayPal hold its answer back."""
    return world.sandbox.fault("paypal", "hold", match={"path_contains": capture}, times=1)


def worker_that_stopped_fetching(world, urls):
    """Start a worker and stop its fetching thread; return broker, worker and thread."""
    broker = build_broker(urls.redis_url, world.executor, {Queue.SAFETY})
    worker = Worker(broker, queues={"safety"}, worker_timeout=50, worker_threads=1)
    worker.start()
    fetching = worker.consumers["safety"]
    assert eventually(lambda: fetching.consumer is not None)
    fetching.stop()
    fetching.join(5)
    return broker, worker, fetching


def dead_letters(client: redis.Redis) -> list[bytes]:
    return client.keys(f"{NAMESPACE}:*.XQ*")


def test_fetched_jobs_go_back_before_the_running_one_is_finished(
    world, processes, redis_client, capture
):
    # Given a worker whose one thread runs a long job, and that has fetched a job of a second queue
    fault = hold(world, capture)
    running = stage_refresh(world, capture)
    waiting = [world.stage("process_event", event_id=f"evt_{n}") for n in range(3)]
    worker = processes.worker("billing", "safety", threads=1)
    notify(world, redis_client, running)
    assert held(world, fault)
    notify(world, redis_client, *waiting)
    assert eventually(lambda: fetched(redis_client, "safety") == 1)

    # When it is asked to stop
    worker.process.terminate()

    # Then all that it has not begun is in the queue again while it still works
    assert eventually(lambda: notified(redis_client, "safety") == sorted(waiting))
    assert fetched(redis_client, "safety") == 0
    assert worker.process.is_alive()
    assert world.job(running).done_at is None

    # And it finishes the job that it had begun
    release(world, fault)
    assert worker.ended() == 0, worker.output()
    assert world.job(running).outcome == "done"
    assert notified(redis_client, "safety") == sorted(waiting)


def test_stopping_worker_fetches_nothing_more(world, urls, redis_client):
    # Given a worker that waits for messages
    broker = build_broker(urls.redis_url, world.executor, {Queue.SAFETY, Queue.BILLING})
    worker = Worker(broker, queues={"safety", "billing"}, worker_timeout=50, worker_threads=2)
    worker.start()
    assert eventually(lambda: all(one.consumer for one in worker.consumers.values()))

    # When it is stopped, Then none of its threads works or fetches
    assert stop_worker(worker, limit_seconds=20, hurry=lambda: False) == 0
    assert eventually(lambda: not any(one.is_alive() for one in worker.consumers.values()))

    # And a new message stays in the queue for others
    job_id = world.stage("process_event", event_id="evt_none")
    notify(world, redis_client, job_id)
    assert notified(redis_client) == [job_id]
    broker.close()


def test_message_that_an_emptied_redis_lost_does_not_delay_a_stop(world, urls, redis_client):
    # Given a worker that has fetched an id whose message is lost, and not processed it
    broker, worker, fetching = worker_that_stopped_fetching(world, urls)
    redis_client.rpush(f"{NAMESPACE}:safety", "job_lost.0")
    fetching.consumer.message_cache = broker.do_fetch("safety", 1)
    assert fetching.consumer.message_cache == [None]

    # When it is asked to stop, Then it stops
    assert stop_worker(worker, limit_seconds=20, hurry=lambda: False) == 0
    broker.close()


def test_worker_stops_when_redis_takes_no_message_back(world, urls, redis_client, monkeypatch):
    # Given a worker with a fetched message that it has not processed, and a silent Redis
    monkeypatch.setattr("workers.shutdown._RETURN_SECONDS", 0.1)
    broker, worker, fetching = worker_that_stopped_fetching(world, urls)
    notify(world, redis_client, world.stage("process_event", event_id="evt_none"))
    fetching.consumer.message_cache = broker.do_fetch("safety", 1)
    speaks = threading.Event()
    monkeypatch.setattr(fetching, "requeue_messages", lambda _: speaks.wait(60))

    # When it is asked to stop, Then it stops, and the job's row keeps the job
    assert stop_worker(worker, limit_seconds=20, hurry=lambda: False) == 0
    assert not speaks.is_set()
    speaks.set()
    broker.close()


def test_second_signal_ends_a_worker_at_once_and_another_does_its_job(
    world, processes, redis_client, organization, capture
):
    # Given a worker in the middle of a job
    fault = hold(world, capture)
    job_id = stage_refresh(world, capture)
    worker = processes.worker("billing", threads=1)
    notify(world, redis_client, job_id)
    assert held(world, fault)

    # When it is asked to stop twice
    worker.process.terminate()
    worker.wait_for("worker_stopping")
    worker.process.terminate()

    # Then it ends although its job is not finished, and reports that
    assert worker.ended() == 1, worker.output()
    assert "worker_stopped_with_unfinished_jobs" in worker.output()
    assert world.job(job_id).lease_until is not None

    # And another worker takes the job over after its lease, and the money is credited once
    release(world, fault)
    processes.worker("billing")
    processes.relay()
    world.due_now()
    assert eventually(lambda: world.job(job_id).outcome == "done")
    assert world.wallet(organization).balance_micros == 10_000_000


def test_unknown_job_is_left_to_a_newer_worker(world, processes, redis_client, organization):
    # Given a worker of an older version, and a job that a newer version introduced
    older = processes.call(work_as_an_older_version)
    older.wait_for("worker_started")
    job_id = world.stage("enforce_organization", organization_id=organization)
    notify(world, redis_client, job_id)
    assert eventually(lambda: "job_name_unknown" in older.output())

    # When it was notified of the job, Then it acknowledged the message and left the job untouched
    assert eventually(lambda: fetched(redis_client, "safety") == 0)
    assert notified(redis_client) == []
    assert (world.job(job_id).attempt, world.job(job_id).failures) == (0, 0)
    assert dead_letters(redis_client) == []

    # And a worker that knows the job does it, at its next notification
    assert older.stop() == 0
    processes.worker("safety")
    processes.relay()
    assert eventually(lambda: world.job(job_id).outcome == "done")


def test_actor_that_does_not_end_is_stopped_at_its_limit(
    world, processes, redis_client, organization
):
    # Given a worker of one thread whose first job never ends
    worker = processes.call(work_without_end)
    worker.wait_for("worker_started")
    endless = world.stage("enforce_organization", organization_id=organization)
    notify(world, redis_client, endless)

    # When its time limit is over, Then the attempt has failed
    assert eventually(lambda: world.job(endless).failures == 1)
    assert "TimeLimitExceeded" in newest_attempt(world, endless).error

    # And the thread runs the next job
    other = world.stage("process_event", event_id="evt_none")
    notify(world, redis_client, other)
    assert eventually(lambda: world.job(other).outcome == "refused")
    assert dead_letters(redis_client) == []


def test_no_message_becomes_a_dead_letter(world, processes, redis_client, capture):
    # Given jobs that end in every way: done, refused, failed, dead, and one whose row is deleted
    done = stage_refresh(world, capture)
    refused = world.stage("process_event", event_id="evt_none")
    failed = stage_refresh(world, "7UNKNOWN")
    dead = world.stage("enforce_organization", organization_id="org_x")
    execute_sql(
        world,
        "UPDATE jobs SET failures = 20, attempt = 20 WHERE id = %s",
        dead,
    )
    gone = world.stage("process_event", event_id="evt_none")
    notify(world, redis_client, done, refused, failed, dead, gone)
    execute_sql(world, "DELETE FROM jobs WHERE id = %s", gone)
    processes.worker("safety", "billing")

    # When all have been processed
    assert eventually(lambda: world.job(done).outcome == "done")
    assert eventually(lambda: world.job(refused).outcome == "refused")
    assert eventually(lambda: world.job(failed).attempt == 1)
    assert eventually(lambda: world.job(dead).dead_at is not None)
    assert eventually(
        lambda: fetched(redis_client, "safety") + fetched(redis_client, "billing") == 0
    )

    # Then no message is left in Redis, and none is among Dramatiq's dead letters
    assert notified(redis_client) == notified(redis_client, "billing") == []
    assert dead_letters(redis_client) == []


def test_message_rejected_by_dramatiq_is_acknowledged(world, urls, redis_client):
    # Given a message that Dramatiq itself treats as failed
    broker = build_broker(urls.redis_url, world.executor, {Queue.SAFETY})
    job_id = world.stage("process_event", event_id="evt_none")
    notify(world, redis_client, job_id)
    consumer = broker.consume("safety", prefetch=1, timeout=50)
    message = next(one for one in consumer if one is not None)
    assert fetched(redis_client, "safety") == 1

    # When it is rejected
    message.fail()
    consumer.nack(message)

    # Then it is gone, and the row keeps its next notification
    assert fetched(redis_client, "safety") == 0
    assert dead_letters(redis_client) == []
    assert redis_client.hlen(f"{NAMESPACE}:safety.msgs") == 0
    assert world.job(job_id).ring_at is not None
    broker.close()


def test_worker_stops_in_order_while_its_job_waits_for_the_database(
    world, processes, redis_client, organization, urls
):
    # Given a worker whose job waits for a lock
    job_id = world.stage("enforce_organization", organization_id=organization)
    with psycopg.connect(driver_url(urls.owner_url)) as holder:
        holder.execute("SELECT 1 FROM organizations FOR UPDATE")
        worker = processes.worker("safety", threads=1)
        notify(world, redis_client, job_id)
        assert eventually(lambda: fetched(redis_client, "safety") == 1)

        # When it is asked to stop, Then the lock timeout ends the wait, and the worker stops
        assert worker.stop() == 0, worker.output()
    assert world.job(job_id).done_at is None
