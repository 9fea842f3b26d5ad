"""Outages: without PostgreSQL webhooks are answered 503; without Redis, accepted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from base.clock import wait_until
from db.address import driver_url
from db.models import InboxEvent, Job
from db.redis.client import connect
from tests.ingress.support import paypal_event
from tests.ingress.webhooks.test_paypal import is_refused
from tests.workers.scenes import eventually, notified


@pytest.fixture
def ingress(far):
    return far


def test_webhook_is_answered_503_while_postgresql_is_away(world, ingress, way):
    # Given an ingress that has worked, and a database that is away
    assert ingress.send(ingress.genuine()).status_code == 200
    assert ingress.client.get("/readyz").status_code == 200
    way.cut()

    # When an event arrives
    message = ingress.genuine()
    answer = ingress.send(message)

    # Then it is refused with 503, and the process lives but is not ready
    assert is_refused(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert ingress.client.get("/healthz").json() == {"status": "ok"}
    # (the result of /readyz is kept for a second)
    assert eventually(lambda: ingress.client.get("/readyz").status_code == 503)
    assert is_refused(ingress.client.get("/readyz"), 503)

    # And when the database is back, the repeat is accepted
    way.mend()
    assert ingress.send(message).status_code == 200
    assert wait_until(lambda: ingress.client.get("/readyz").is_success, limit_seconds=10)
    assert len(world.read(InboxEvent)) == 2


def test_sandbox_repeats_the_webhook_until_postgresql_is_back(world, ingress, way):
    # Given a delivery that failed because the database was away
    way.cut()
    (delivery,) = ingress.sandbox.control(
        "POST",
        "/paypal/events",
        {"event_type": "BILLING.SUBSCRIPTION.SUSPENDED", "organization_id": "org_one"},
    )
    assert delivery["status_code"] == 503

    # When the database is back, Then the sandbox's next delivery is stored
    way.mend()
    assert eventually(lambda: len(world.read(InboxEvent)) == 1)


def test_webhook_is_answered_503_when_the_commits_answer_is_lost(world, ingress, way):
    # Given an ingress whose database stops answering
    assert ingress.send(ingress.genuine()).status_code == 200
    message = ingress.genuine()
    way.deaf.set()
    with ThreadPoolExecutor(1) as pool:
        # When an event is committed, and the connection is lost before the ingress learns of it
        answer = pool.submit(ingress.send, message)
        assert eventually(lambda: len(world.read(InboxEvent)) == 2)
        way.cut()

        # Then the sender is asked to repeat
        assert is_refused(answer.result(), 503)

    # And the repeat finds the stored event
    way.mend()
    assert ingress.send(message).json()["verdict"] == "duplicate"
    assert (len(world.read(InboxEvent)), len(world.read(Job))) == (2, 2)


def test_webhook_is_not_answered_before_its_commit(world, ingress, urls):
    # Given an inbox table that is locked
    message = ingress.genuine()
    answers: list[int] = []
    with psycopg.connect(driver_url(urls.owner_url)) as holder:
        holder.execute("LOCK TABLE inbox IN EXCLUSIVE MODE")
        sender = threading.Thread(target=lambda: answers.append(ingress.send(message).status_code))
        sender.start()
        assert eventually(lambda: _waits_for_lock(urls))

        # Then its sender is not answered
        assert answers == []
        holder.rollback()
    sender.join()

    # Until the event is stored
    assert answers == [200]
    assert len(world.read(InboxEvent)) == 1


def _waits_for_lock(urls):
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as watch:
        row = watch.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND NOT l.granted"
        ).fetchone()
    return row[0] > 0


def test_webhook_is_answered_503_when_storing_takes_too_long(world, ingress, urls):
    # Given a lock that lasts longer than the lock timeout of the database's login
    message = ingress.genuine()
    with psycopg.connect(driver_url(urls.owner_url)) as holder:
        holder.execute("LOCK TABLE inbox IN EXCLUSIVE MODE")
        assert is_refused(ingress.send(message), 503)
        holder.rollback()

    assert world.read(InboxEvent) == []
    assert ingress.send(message).status_code == 200


def test_events_are_stored_while_redis_is_away(world, start_ingress, settings):
    # Given a Redis that is away
    away = settings.model_copy(update={"redis_url": "unix:///nowhere/valkey.sock?db=0"})
    ingress = start_ingress(away)

    # When events arrive, Then they are accepted, and the ingress is ready
    for number in range(3):
        message = ingress.signed(paypal_event(f"WH-{number}"))
        assert ingress.send(message).status_code == 200
    assert ingress.client.get("/readyz").status_code == 200

    # And their jobs wait for the relay
    assert [job.rings for job in world.read(Job)] == [0, 0, 0]
    assert all(job.ring_at is not None for job in world.read(Job))


def test_new_event_is_notified_at_once_and_a_repeat_is_not(world, start_ingress, settings, urls):
    # Given an ingress with Redis, and no relay
    ingress = start_ingress(settings)
    message = ingress.genuine()
    with connect(urls.redis_url) as client:
        # When an event arrives twice
        assert ingress.send(message).json()["verdict"] == "new"
        assert ingress.send(message).json()["verdict"] == "duplicate"

        # Then its one job was notified once
        (job,) = world.read(Job)
        assert eventually(lambda: notified(client) == [job.id])
