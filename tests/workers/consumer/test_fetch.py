"""Fetching messages from Redis: waiting for them changes nothing."""

from __future__ import annotations

import threading

import pytest
from dramatiq.errors import ConnectionClosed

from db.jobs.staging import Staged
from db.redis.client import NAMESPACE, connect, push
from tests.workers.scenes import LIMIT_SECONDS, eventually
from workers.consumer.broker import NotificationBroker

#: Longer than any test lasts: a thread that only this wait ends is too late.
NEVER_MS = 600_000
QUEUE = "safety"


@pytest.fixture
def unlimited(urls):
    """A client that waits for an answer without a time limit."""
    client = connect(urls.redis_url)
    client.connection_pool.connection_kwargs["socket_timeout"] = None
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def broker(unlimited):
    return NotificationBroker(client=unlimited, middleware=[], namespace=NAMESPACE)


def notification(number):
    return Staged(f"job_{number}", "process_event", QUEUE)


def in_thread(consumer, fetched):
    """Fetch in a new thread until one message has arrived."""

    def fetch():
        while (message := next(consumer)) is None:
            pass
        fetched.append(message)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    return thread


def is_waiting(client):
    return any("blmove" in one["cmd"] for one in client.client_list())


def test_message_is_fetched_at_once_by_a_waiting_consumer(broker, redis_client):
    # Given a consumer that waits in Redis, for longer than the test lasts
    fetched = []
    thread = in_thread(broker.consume(QUEUE, prefetch=2, timeout=NEVER_MS), fetched)
    assert eventually(lambda: is_waiting(redis_client))

    # When another client pushes a message as Dramatiq does
    push(redis_client, [notification(1)])

    # Then the consumer has it
    thread.join(LIMIT_SECONDS)
    assert [message.kwargs for message in fetched] == [{"job_id": "job_1"}]


def test_waiting_leaves_the_queue_unchanged(broker, redis_client):
    consumer = broker.consume(QUEUE, prefetch=2, timeout=NEVER_MS)
    push(redis_client, [notification(number) for number in range(5)])
    before = redis_client.lrange(f"{NAMESPACE}:{QUEUE}", 0, -1)
    consumer._wait_for_message()
    assert redis_client.lrange(f"{NAMESPACE}:{QUEUE}", 0, -1) == before


def test_no_more_is_fetched_than_there_are_free_threads(broker, redis_client):
    # Given a consumer whose one thread is at work, and another message
    consumer = broker.consume(QUEUE, prefetch=1, timeout=NEVER_MS)
    push(redis_client, [notification(1), notification(2)])
    first = next(consumer)
    fetched = []
    thread = in_thread(consumer, fetched)
    assert eventually(lambda: redis_client.llen(f"{NAMESPACE}:{QUEUE}") == 1)
    assert not fetched

    # When the work is done, Then the other message is fetched
    consumer.ack(first)
    thread.join(LIMIT_SECONDS)
    assert {first.kwargs["job_id"], fetched[0].kwargs["job_id"]} == {"job_1", "job_2"}
    assert redis_client.llen(f"{NAMESPACE}:{QUEUE}") == 0


def test_lost_connection_raises_dramatiqs_connection_closed(broker, unlimited, redis_client):
    consumer = broker.consume(QUEUE, prefetch=1, timeout=NEVER_MS)
    failed = []

    def fetch():
        try:
            while True:
                next(consumer)
        except ConnectionClosed as error:
            failed.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    assert eventually(lambda: is_waiting(redis_client))
    unlimited.connection_pool.connection_kwargs["path"] = "/nowhere/valkey.sock"
    for one in redis_client.client_list():
        if "blmove" in one["cmd"]:
            redis_client.client_kill_filter(_id=one["id"])
    thread.join(LIMIT_SECONDS)
    assert failed
