"""Fetching messages from Redis: waiting for them changes nothing."""

from __future__ import annotations

import threading

import pytest
from dramatiq.errors import ConnectionClosed

from base.enums import Queue
from db.jobs.staging import Staged
from db.redis.client import NAMESPACE, connect, push
from tests.workers.scenes import LIMIT_SECONDS, eventually
from workers.consumer.broker import BellBroker
from workers.process import build_broker

#: Longer than any test lasts: a thread that only this wait ends is too late.
NEVER_MS = 600_000
QUEUE = "safety"


@pytest.fixture
def patient(urls):
    """A client that waits for an answer without a time limit."""
    client = connect(urls.redis_url)
    client.connection_pool.connection_kwargs["socket_timeout"] = None
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def broker(patient):
    return BellBroker(client=patient, middleware=[], namespace=NAMESPACE)


def bell(number):
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


def test_a_message_that_comes_while_nobody_works_is_fetched_at_once(broker, redis_client):
    # Given a consumer that waits in Redis, for longer than the test lasts
    fetched = []
    thread = in_thread(broker.consume(QUEUE, prefetch=2, timeout=NEVER_MS), fetched)
    assert eventually(lambda: is_waiting(redis_client))

    # When another client pushes a message as Dramatiq does
    push(redis_client, [bell(1)])

    # Then the consumer has it
    thread.join(LIMIT_SECONDS)
    assert [message.kwargs for message in fetched] == [{"job_id": "job_1"}]


def test_waiting_leaves_the_queue_as_it_is(broker, redis_client):
    consumer = broker.consume(QUEUE, prefetch=2, timeout=NEVER_MS)
    push(redis_client, [bell(number) for number in range(5)])
    before = redis_client.lrange(f"{NAMESPACE}:{QUEUE}", 0, -1)
    consumer._wait_for_message()
    assert redis_client.lrange(f"{NAMESPACE}:{QUEUE}", 0, -1) == before


def test_no_more_is_fetched_than_there_are_free_threads(broker, redis_client):
    # Given a consumer whose one thread is at work, and another message
    consumer = broker.consume(QUEUE, prefetch=1, timeout=NEVER_MS)
    push(redis_client, [bell(1), bell(2)])
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


def test_a_lost_connection_is_told_in_dramatiqs_own_words(broker, patient, redis_client):
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
    patient.connection_pool.connection_kwargs["path"] = "/nowhere/valkey.sock"
    for one in redis_client.client_list():
        if "blmove" in one["cmd"]:
            redis_client.client_kill_filter(_id=one["id"])
    thread.join(LIMIT_SECONDS)
    assert failed


def sifting(patient, ended):
    """Build a consumer's broker, and a list of the job ids that it was asked to sift."""
    shown = []

    def sift(job_ids):
        shown.append(job_ids)
        return {job_id for job_id in job_ids if job_id in ended}

    broker = BellBroker(client=patient, middleware=[], namespace=NAMESPACE, sifts={QUEUE: sift})
    return broker, shown


def in_hands(client, broker):
    return client.smembers(f"{NAMESPACE}:__acks__.{broker.broker_id}.{QUEUE}")


def test_ended_events_are_acknowledged_and_only_the_rest_is_returned(patient, redis_client):
    # Given four events, of which two are ended without a thread, and another job
    broker, shown = sifting(patient, {"job_1", "job_3"})
    push(redis_client, [bell(number) for number in range(4)])
    push(redis_client, [Staged("job_3", "enforce_organization", QUEUE)])

    # When they are fetched
    consumer = broker.consume(QUEUE, prefetch=5, timeout=NEVER_MS)
    left = [next(consumer) for _ in range(3)]

    # Then the events alone were sifted, together, and what was not ended is returned
    assert shown == [["job_0", "job_1", "job_2", "job_3"]]
    assert [(one.actor_name, one.kwargs["job_id"]) for one in left] == [
        ("process_event", "job_0"),
        ("process_event", "job_2"),
        ("enforce_organization", "job_3"),
    ]
    assert (
        len(in_hands(redis_client, broker)) == redis_client.hlen(f"{NAMESPACE}:{QUEUE}.msgs") == 3
    )
    assert consumer.outstanding_message_count == 3


def test_batch_that_is_ended_whole_leaves_nothing_and_next_is_fetched(patient, redis_client):
    broker, shown = sifting(patient, {"job_0", "job_1"})
    push(redis_client, [bell(number) for number in range(3)])
    consumer = broker.consume(QUEUE, prefetch=2, timeout=NEVER_MS)

    assert next(consumer) is None
    assert consumer.outstanding_message_count == 0
    assert next(consumer).kwargs == {"job_id": "job_2"}
    assert shown == [["job_0", "job_1"], ["job_2"]]


def test_message_that_another_worker_got_meanwhile_is_left_to_it(patient, redis_client):
    # Given a worker that counted as dead while it sifted, so another worker was given its message
    queue = f"{NAMESPACE}:{QUEUE}"

    def hand_on(job_ids):
        (message_id,) = in_hands(redis_client, broker)
        redis_client.delete(f"{NAMESPACE}:__acks__.{broker.broker_id}.{QUEUE}")
        redis_client.rpush(queue, message_id)
        return set(job_ids)

    broker = BellBroker(client=patient, middleware=[], namespace=NAMESPACE, sifts={QUEUE: hand_on})
    push(redis_client, [bell(1)])

    # When it acknowledges
    assert next(broker.consume(QUEUE, prefetch=1, timeout=NEVER_MS)) is None

    # Then the message is still whole
    (message_id,) = redis_client.lrange(queue, 0, -1)
    assert redis_client.hexists(f"{queue}.msgs", message_id)


def test_events_ended_while_redis_is_lost_are_passed_on_for_acknowledgment(patient, redis_client):
    # Given a Redis that cannot be reached when an ended event must be acknowledged
    def lose_redis(job_ids):
        patient.connection_pool.reset()
        patient.connection_pool.connection_kwargs["path"] = "/nowhere/valkey.sock"
        return set(job_ids)

    broker = BellBroker(
        client=patient, middleware=[], namespace=NAMESPACE, sifts={QUEUE: lose_redis}
    )
    push(redis_client, [bell(1)])

    # When it is fetched, Then it reaches a thread, which acknowledges it once Redis is back
    consumer = broker.consume(QUEUE, prefetch=1, timeout=NEVER_MS)
    assert next(consumer).kwargs == {"job_id": "job_1"}


def test_only_queues_of_what_concerns_nobody_are_sifted(world, urls):
    broker = build_broker(urls.redis_url, world.executor, set(), set)
    sifted = {queue for queue in Queue if broker.consume(str(queue))._sift is not None}
    assert sifted == {Queue.CALLBACKS, Queue.MAINTENANCE}
    broker.close()
