"""Ignored events are ended in batches, each once; all other events are left alone."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, closing

import psycopg
import pytest

from base.settings import load_settings
from db.address import driver_url
from db.models import InboxEvent, Job, JobAttempt
from local.databases import derive_app_url
from tests.conftest import PASSWORD
from tests.db.support import at_once
from tests.support.cuttable import Way
from tests.workers.scenes import (
    LIMIT_SECONDS,
    another_thread,
    eventually,
    execute_sql,
    newest_attempt,
    ring,
    rung,
)
from workers.consumer import sieve as sieve_module
from workers.consumer.sieve import Sieve

OF_NO_CONCERN = "BILLING.PLAN.CREATED"
SUSPENDED = "BILLING.SUBSCRIPTION.SUSPENDED"


@pytest.fixture
def sieve(world):
    made = Sieve(world.settings.database_url, "sieve-a")
    yield made
    made.close()


def receive(world, event_id, event_type=OF_NO_CONCERN, resource_id="I-ABC", queue="callbacks"):
    body = {"id": event_id, "event_type": event_type, "resource": {"id": resource_id}}
    assert world.receive(event_id, event_type, json.dumps(body).encode(), queue) == "new"
    return f"job_{event_id}"


def is_untouched(world, event_id):
    job, event = world.job(f"job_{event_id}"), world.event(event_id)
    return (job.done_at, job.attempt, job.worker, event.handled_at, event.outcome) == (
        None,
        0,
        None,
        None,
        None,
    ) and not world.read(JobAttempt, job_id=job.id)


def test_a_server_that_says_nothing_is_left_and_the_next_connection_sifts(world, monkeypatch):
    monkeypatch.setattr("db.connection._SILENCE_SECONDS", 3)
    # Given a connection that is open but gets no answers any more
    way = Way(world.settings.database_url)
    sieve = Sieve(way.url, "sieve-a")
    assert sieve.end_ignored([receive(world, "WH-1")]) == {"job_WH-1"}
    way.deaf.set()
    # When it is used, Then the waiting event is left to the threads
    second = receive(world, "WH-2")
    with another_thread() as start, ExitStack() as at_the_end:
        at_the_end.callback(way.cut)
        assert start(sieve.end_ignored, [second]).result(LIMIT_SECONDS) == set()
        # And the next batch is ended once the server can be reached again
        way.deaf.clear()
        assert sieve.end_ignored([second]) == {second}
    sieve.close()


def test_events_of_no_concern_are_marked_and_their_jobs_finished_together(world, sieve):
    # Given three events of no concern
    ids = [receive(world, f"WH-{number}") for number in range(3)]

    # When they are fetched at once
    assert sieve.end_ignored(ids) == set(ids)

    # Then each is ignored, and its job and its one attempt are done
    for event in world.read(InboxEvent):
        assert event.outcome == "ignored"
        assert event.received_at <= event.handled_at
    for job_id in ids:
        job, attempt = world.job(job_id), newest_attempt(world, job_id)
        assert (job.outcome, job.attempt, job.ring_at, job.worker) == ("done", 1, None, "sieve-a")
        assert (attempt.attempt, attempt.outcome, attempt.worker) == (1, "done", "sieve-a")
        assert attempt.started_at <= attempt.ended_at

    # And if they are notified again, they are already done
    assert sieve.end_ignored(ids) == set()
    assert [world.executor.execute(job_id) for job_id in ids] == ["taken"] * 3


def test_event_that_matters_or_is_malformed_is_left_unchanged(world, sieve):
    # Given a closing event, a malformed one, an ignored one, and another job that names the ignored
    # event
    closing_one = receive(world, "WH-1", SUSPENDED)
    malformed = receive(world, "WH-2", SUSPENDED, resource_id="../../etc")
    ignored = receive(world, "WH-3")
    other = world.stage("enforce_organization", organization_id="one")
    kwargs = json.dumps({"event_id": "evt_WH-3"})
    execute_sql(world, "UPDATE jobs SET kwargs = %s::jsonb WHERE id = %s", kwargs, other)

    # When all are fetched at once
    assert sieve.end_ignored([other, closing_one, malformed, "job_unknown", ignored]) == {ignored}

    # Then all but the ignored event are processed by their own jobs
    assert is_untouched(world, "WH-1")
    assert is_untouched(world, "WH-2")
    assert world.job(other).attempt == 0
    assert world.executor.execute(closing_one) == "done"
    assert world.executor.execute(malformed) == "done"
    assert [world.event(name).outcome for name in ("WH-1", "WH-2")] == ["handled", "malformed"]


def test_an_event_whose_reading_fails_does_no_harm_to_the_others(world, sieve, monkeypatch):
    # Given an event that cannot be read because of a bug
    bad, good = receive(world, "WH-1"), receive(world, "WH-2")
    report_of = sieve_module.report_of

    def broken(source, event_type, body):
        if b"WH-1" in body:
            raise ZeroDivisionError("a bug")
        return report_of(source, event_type, body)

    monkeypatch.setattr(sieve_module, "report_of", broken)

    # When it is fetched with another, Then the other is ended all the same
    assert sieve.end_ignored([bad, good]) == {good}
    assert is_untouched(world, "WH-1")


@pytest.mark.parametrize(
    "change",
    [
        "done_at = clock_timestamp(), outcome = 'discarded', ring_at = NULL",
        "dead_at = clock_timestamp(), ring_at = NULL",
        "due_at = clock_timestamp() + interval '1 minute'",
        "lease_until = clock_timestamp() + interval '1 minute'",
        "lease_until = clock_timestamp() - interval '1 minute'",
        "failures = 1",
        "rings = 3",
    ],
)
@pytest.mark.parametrize("between", [False, True])
def test_only_a_job_whose_first_attempt_nobody_has_begun_is_ended(
    world, sieve, monkeypatch, change, between
):
    # Given a job that was changed, before it was read or just after
    job_id, good = receive(world, "WH-1"), receive(world, "WH-2")
    statement = f"UPDATE jobs SET {change} WHERE id = %s"
    if between:
        meanwhile(monkeypatch, sieve, lambda: execute_sql(world, statement, job_id))
    else:
        execute_sql(world, statement, job_id)
    told = {True: {job_id, good}, False: {good}}[between]

    # When it is fetched with another
    seen = note_read(monkeypatch, sieve)
    assert sieve.end_ignored([job_id, good]) == {good}

    # Then it is left to a thread, and the change is kept
    assert seen == told
    assert world.event("WH-1").handled_at is None
    assert world.read(JobAttempt, job_id=job_id) == []


def test_a_job_rung_no_more_than_twice_may_still_be_ended(world, sieve):
    job_id = receive(world, "WH-1")
    execute_sql(world, "UPDATE jobs SET rings = 2 WHERE id = %s", job_id)
    assert sieve.end_ignored([job_id]) == {job_id}


def test_an_event_that_was_handled_in_between_is_left_as_it_is(world, sieve, monkeypatch):
    # Given an event that another of its jobs handles while it is read
    job_id = receive(world, "WH-1")

    def handle():
        assert world.executor.execute(world.stage("process_event", event_id="evt_WH-1")) == "done"

    meanwhile(monkeypatch, sieve, handle)

    # When it is fetched, Then it is left alone, and its job finds it handled
    assert sieve.end_ignored([job_id]) == set()
    handled_at = world.event("WH-1").handled_at
    assert world.executor.execute(job_id) == "done"
    assert world.event("WH-1").handled_at == handled_at


def test_an_event_that_was_handled_and_pruned_is_not_even_read(world, sieve, monkeypatch):
    assert world.executor.execute(receive(world, "WH-1")) == "done"
    execute_sql(world, "UPDATE inbox SET body = NULL")
    job_id = world.stage("process_event", event_id="evt_WH-1")
    seen = note_read(monkeypatch, sieve)
    assert sieve.end_ignored([job_id]) == set()
    assert seen == set()


@pytest.mark.parametrize(
    "locked",
    [
        "SELECT 1 FROM jobs WHERE id = 'job_WH-1' FOR NO KEY UPDATE",
        "SELECT 1 FROM inbox WHERE id = 'evt_WH-1' FOR NO KEY UPDATE",
    ],
)
def test_nobody_waits_for_a_job_or_an_event_that_somebody_has_locked(world, sieve, locked):
    # Given a row that another transaction has locked
    held, free = receive(world, "WH-1"), receive(world, "WH-2")
    with psycopg.connect(driver_url(world.database.url)) as other:
        other.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        other.execute(locked)

        # When it is fetched with a free one, Then only the free one is ended, at once
        assert sieve.end_ignored([held, free]) == {free}

    # And when the row is free, it is ended too
    assert is_untouched(world, "WH-1")
    assert sieve.end_ignored([held]) == {held}


def test_workers_that_fetch_the_same_events_at_once_end_each_once(world):
    # Given forty events, and four workers that were notified of all of them
    ids = [receive(world, f"WH-{number}") for number in range(40)]
    sieves = [Sieve(world.settings.database_url, f"sieve-{number}") for number in range(4)]

    # When they fetch at once, two of them in reverse order
    orders = [ids, ids[::-1], ids, ids[::-1]]
    ended = at_once(
        [
            lambda one=one, order=order: one.end_ignored(order)
            for one, order in zip(sieves, orders, strict=True)
        ]
    )

    # Then each event was ended by one of them, and has one attempt
    assert sorted(job_id for one in ended for job_id in one) == sorted(ids)
    assert len(world.read(JobAttempt)) == 40
    assert {job.attempt for job in world.read(Job)} == {1}
    for one in sieves:
        one.close()


def test_one_bell_doubled_ends_its_job_once(world, sieve):
    job_id = receive(world, "WH-1")
    assert sieve.end_ignored([job_id, job_id]) == {job_id}
    assert len(world.read(JobAttempt)) == 1


def test_lost_connection_leaves_the_events_to_the_threads_and_is_reopened(
    world, urls, sieve, monkeypatch
):
    # Given a connection that is cut between the read and the commit
    ids = [receive(world, f"WH-{number}") for number in range(2)]
    direct = derive_app_url(urls.owner_url, PASSWORD)
    by_hand = Sieve(direct, "sieve-b")
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'holdfast sieve' AND datname = current_database()"
    )

    def terminate():
        with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
            assert owner.execute(cut).fetchall()

    with monkeypatch.context() as patch:
        meanwhile(patch, by_hand, terminate)

        # When they are fetched, Then no error is raised, and nothing was done
        assert by_hand.end_ignored(ids) == set()
    assert is_untouched(world, "WH-0")

    # And the next batch is ended over a new connection
    assert by_hand.end_ignored(ids) == set(ids)
    by_hand.close()


def test_read_only_server_is_dropped_and_the_next_connection_ends_events(world, urls):
    # Given a connection to a server that is read-only, as after a failover. The connection bypasses
    # the pooler, which would give it to other clients, still read-only
    job_id = receive(world, "WH-1")
    with closing(Sieve(derive_app_url(urls.owner_url, PASSWORD), "sieve-a")) as direct:
        assert direct.end_ignored(["job_unknown"]) == set()
        direct._events._connection.execute("SET default_transaction_read_only = on")
        assert direct.end_ignored([job_id]) == set()
        assert is_untouched(world, "WH-1")
        # When the event is fetched again, Then it is ended
        assert direct.end_ignored([job_id]) == {job_id}


def test_without_a_database_everything_is_left_to_the_threads(world):
    with closing(Sieve("postgresql://holdfast_app@/nowhere?host=/nowhere", "sieve-a")) as away:
        assert away.end_ignored([receive(world, "WH-1")]) == set()
    assert is_untouched(world, "WH-1")


def die_before_the_commit(job_ids):
    """Run a worker that is killed after it has read the events."""

    def die(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    victim = Sieve(load_settings().database_url, "victim")
    victim._events.end = die
    victim.end_ignored(job_ids)


def test_a_worker_killed_with_a_batch_in_its_hands_has_done_nothing_to_it(world, processes, sieve):
    # Given a worker that was killed before its commit
    ids = [receive(world, f"WH-{number}") for number in range(3)]
    assert processes.call(die_before_the_commit, ids).ended() == -9

    # When the jobs are notified again
    assert all(is_untouched(world, f"WH-{number}") for number in range(3))

    # Then another worker ends them
    assert sieve.end_ignored(ids) == set(ids)


def test_a_worker_ends_them_without_its_threads_and_nothing_stays_in_redis(
    world, processes, redis_client
):
    # Given events of no concern and a closing one, all in the queue of callbacks
    ids = [receive(world, f"WH-{number}") for number in range(20)]
    closing_one = receive(world, "WH-closing", SUSPENDED)
    worker = processes.worker("callbacks", threads=4)

    # When a worker is notified of them
    ring(world, redis_client, *ids[:10], closing_one, *ids[10:])

    # Then all are done, each with its own outcome, and no message is left
    everything = [*ids, closing_one]
    assert eventually(lambda: all(world.job(job_id).done_at for job_id in everything))
    assert world.event("WH-closing").outcome == "handled"
    assert {world.event(f"WH-{number}").outcome for number in range(20)} == {"ignored"}
    assert {newest_attempt(world, job_id).attempt for job_id in everything} == {1}
    assert worker.stop() == 0, worker.said()
    assert rung(redis_client, "callbacks") == []
    assert redis_client.hlen("dramatiq:callbacks.msgs") == 0
    assert redis_client.keys("dramatiq:__acks__*callbacks") == []


def meanwhile(monkeypatch, sieve, act):
    """Have `act` run between the read and the commit."""
    end = sieve._events.end

    def acted_first(*arguments):
        act()
        return end(*arguments)

    monkeypatch.setattr(sieve._events, "end", acted_first)


def note_read(monkeypatch, sieve):
    """Collect the jobs whose events were read."""
    seen = set()
    read = sieve._events.read

    def noted(job_ids):
        events = read(job_ids)
        seen.update(event.job_id for event in events)
        return events

    monkeypatch.setattr(sieve._events, "read", noted)
    return seen
