"""A Redis that our own messages fill: it is emptied, and work continues."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis

from db.jobs.staging import Staged
from db.redis.capacity import drop_messages, read_memory
from db.redis.client import EPOCH_KEY, NAMESPACE, connect, push, run_id
from tests.support.killable_redis import killable_redis
from tests.workers.scenes import eventually, execute_sql, notified
from workers.relay import Relay

#: Bytes that the small Redis has for messages, in addition to what an empty one uses.
FREE_BYTES = 1_500_000
#: Jobs of an unknown organization, which have nothing to do.
_STAGE_MANY = """
    INSERT INTO jobs (id, name, kwargs, queue, correlation_id, ring_at)
    SELECT 'job_' || n, 'expire_holds', '{"organization_id": "org_none"}', %s, 'cor',
        clock_timestamp()
    FROM generate_series(1, %s) AS n
"""
_DUE_NOW = "UPDATE jobs SET ring_at = clock_timestamp() WHERE queue = %s"
_NOTIFIED = "UPDATE jobs SET rings = 7, ring_at = clock_timestamp() + interval '10 minutes'"


@pytest.fixture
def small_redis():
    """A Redis with room for about two thousand messages."""
    with killable_redis() as server, closing(connect(server.url)) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + FREE_BYTES)
        yield server


@pytest.fixture
def client(small_redis):
    with closing(connect(small_redis.url)) as made:
        yield made


def fill(client, *jobs):
    """Push the messages of jobs again and again until Redis refuses them."""
    many = [Staged(job.id, job.name, job.queue) for job in jobs]
    with pytest.raises(redis.RedisError, match=r"OOM|maxmemory"):
        while True:
            push(client, many)
    # Fill it to the last byte, so that even a small write is refused.
    with pytest.raises(redis.RedisError):
        for number in range(100_000):
            client.set(f"other:{number}", "x" * 50)


@pytest.mark.parametrize("queue", ["billing", "safety"])
def test_redis_full_of_our_messages_empties_itself(world, processes, client, small_redis, queue):
    # Given jobs that were notified so often that their next notification is minutes away, and a
    # Redis that their messages fill
    execute_sql(world, _STAGE_MANY, queue, 20)
    execute_sql(world, _NOTIFIED)
    jobs = [world.job(f"job_{number}") for number in range(1, 21)]
    client.set(EPOCH_KEY, run_id(client))
    fill(client, *jobs)
    with pytest.raises(redis.RedisError):
        client.zadd("dramatiq:__heartbeats__", {"a worker": 1})

    # When a worker and a relay start, Then every job is done, and nothing is left in Redis
    processes.environment["REDIS_URL"] = small_redis.url
    worker = processes.worker(queue)
    relay = processes.relay()
    assert eventually(lambda: all(world.job(one.id).done_at for one in jobs)), worker.output()
    assert eventually(lambda: notified(client, queue) == []), relay.output()
    assert read_memory(client).room(0.75) > 0


def fill_by_others(client, share):
    """Store other data until Redis uses this share of its memory."""
    number = 0
    while read_memory(client).room(share) >= 0:
        client.set(f"other:{number}", "x" * 2_000)
        number += 1


def test_full_redis_that_does_not_report_its_memory_is_emptied(world, client, small_redis):
    # Given a full Redis whose login may not read its memory use
    execute_sql(world, _STAGE_MANY, "billing", 1)
    client.execute_command("ACL", "SETUSER", "relay", "on", ">pw", "~*", "&*", "+@all", "-info")
    fill(client, world.job("job_1"))
    with closing(connect(small_redis.url)) as blind:
        blind.execute_command("AUTH", "relay", "pw")
        assert read_memory(blind) == (0, 0)
        # When the relay's push is refused, Then the messages are dropped
        relay = Relay(world.database, blind, declared=())
        with pytest.raises(redis.RedisError):
            relay.run_once()
    assert not client.exists(f"{NAMESPACE}:billing", f"{NAMESPACE}:billing.msgs")


def test_messages_are_dropped_only_while_redis_is_full(world, client, organization):
    # Given a Redis that is nearly full
    execute_sql(world, _STAGE_MANY, "billing", 1)
    relay = Relay(world.database, client)
    relay.run_once()
    fill_by_others(client, 0.95)
    # When the relay runs, Then nothing is dropped
    assert read_memory(client).room(1.0) > 0
    relay.run_once()
    assert notified(client, "billing") == ["job_1"]


def test_relay_notifies_no_more_than_fits(world, client):
    # Given many more due jobs than fit into Redis
    execute_sql(world, _STAGE_MANY, "billing", 5_000)
    relay = Relay(world.database, client, declared=())
    # When the relay runs several times, Then it never fills Redis
    counts = [relay.run_once() for _ in range(8)]
    assert 0 < sum(counts) < 5_000
    assert counts[-1] == 0
    assert read_memory(client).room(0.9) > 0
    # And it continues when there is room again
    client.delete(f"{NAMESPACE}:billing", f"{NAMESPACE}:billing.msgs")
    assert relay.run_once() > 0


def test_queue_that_is_nearly_empty_is_notified_although_others_fill_redis(world, client):
    # Given a Redis that other data fills, and more due jobs than may wait in a queue then
    execute_sql(world, _STAGE_MANY, "billing", 300)
    fill_by_others(client, 0.8)
    relay = Relay(world.database, client, declared=())
    # When the relay runs, Then it notifies of a few jobs, and of no more until these have left
    assert [relay.run_once() for _ in range(3)] == [200, 0, 0]
    execute_sql(world, _DUE_NOW, "billing")
    assert relay.run_once() == 0
    client.lpop(f"{NAMESPACE}:billing")
    assert relay.run_once() > 0


def test_safety_is_notified_although_redis_is_nearly_full(world, client):
    execute_sql(world, _STAGE_MANY, "safety", 50)
    fill_by_others(client, 0.8)
    assert Relay(world.database, client, declared=()).run_once() == 50


def test_message_is_pushed_whole_or_not_at_all(world, client):
    # Given a Redis that is full before both structures of a batch are written
    many = [Staged(f"job_{number}", "expire_holds", "billing") for number in range(500)]
    with pytest.raises(redis.RedisError, match=r"OOM|maxmemory"):
        while True:
            push(client, many)
    # Then every payload has its id, and every id its payload
    assert client.hlen(f"{NAMESPACE}:billing.msgs") == client.llen(f"{NAMESPACE}:billing")


def test_dropping_messages_has_every_relay_notify_again(client):
    assert not drop_messages(client)
    client.set(EPOCH_KEY, "a server")
    push(client, [Staged("job_1", "expire_holds", "billing")])
    assert drop_messages(client)
    assert client.keys(f"{NAMESPACE}:*") == []
    assert client.get(EPOCH_KEY) is None
