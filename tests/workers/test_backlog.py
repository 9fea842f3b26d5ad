"""A backlog in Redis holds one message for each job, however long it waits."""

from __future__ import annotations

import pytest

from db.jobs.staging import Staged
from db.redis.backlog import LONG, heads_of_long_queues
from db.redis.client import NAMESPACE, push
from tests.workers.scenes import execute_sql, notified, notify
from workers.relay import Relay

_STAGE = """
    INSERT INTO jobs (id, name, kwargs, queue, correlation_id, ring_at)
    SELECT 'job_' || lpad(n::text, 10, '0') || repeat('0', 16), 'process_event',
        '{"event_id": "evt_none"}', %s, 'cor_none', clock_timestamp() + interval '2 seconds'
    FROM generate_series(1, %s) AS n
"""


@pytest.fixture
def relay(world, redis_client):
    relay = Relay(world.database, redis_client)
    # The first pass repeats every notification, because Redis is new.
    relay.run_once()
    return relay


def backlog(world, redis_client, queue, count):
    """Stage jobs, notify of each once, and return their ids."""
    execute_sql(world, _STAGE, queue, count)
    ids = [f"job_{number:010}{'0' * 16}" for number in range(1, count + 1)]
    push(redis_client, [Staged(job_id, "process_event", queue) for job_id in ids])
    return ids


def ten_minutes_pass(world, relay):
    """Let the relay notify whatever is due in ten minutes without a worker."""
    for step in (2, 15, 30, 60, 120, 240, 133):
        execute_sql(
            world,
            "UPDATE jobs SET staged_at = staged_at - make_interval(secs => %s),"
            " due_at = due_at - make_interval(secs => %s),"
            " ring_at = ring_at - make_interval(secs => %s)",
            step,
            step,
            step,
        )
        relay.run_once()


def test_old_backlog_has_one_message_for_each_job(world, relay, redis_client):
    ids = backlog(world, redis_client, "callbacks", LONG + 10)
    ten_minutes_pass(world, relay)
    assert notified(redis_client, "callbacks") == ids
    assert {world.job(job_id).rings for job_id in (ids[0], ids[1], ids[-1])} == {1}


def test_lost_message_of_a_long_queue_is_repeated(world, relay, redis_client):
    first, second, *_ = backlog(world, redis_client, "callbacks", LONG + 10)
    # Given a worker that died with the messages of two jobs
    redis_client.lpop(f"{NAMESPACE}:callbacks", 2)
    world.due_now()
    relay.run_once()
    assert {first, second} <= set(notified(redis_client, "callbacks"))


def test_short_or_urgent_queue_is_notified_again(world, relay, redis_client):
    ids = backlog(world, redis_client, "billing", 3)
    world.due_now()
    relay.run_once()
    assert notified(redis_client, "billing") == sorted(ids * 2)
    execute_sql(world, "UPDATE jobs SET queue = 'safety'")
    for _ in range(LONG // 3 + 1):
        push(redis_client, [Staged(job_id, "process_event", "safety") for job_id in ids])
    before = redis_client.llen(f"{NAMESPACE}:safety")
    world.due_now()
    assert relay.run_once() == 3
    assert redis_client.llen(f"{NAMESPACE}:safety") == before + 3


def test_head_of_a_long_queue_names_its_job(world, redis_client):
    ids = backlog(world, redis_client, "callbacks", LONG - 1)
    assert heads_of_long_queues(redis_client) == {}
    notify(world, redis_client, ids[-1])
    assert heads_of_long_queues(redis_client) == {"callbacks": "job_0000000001"}
