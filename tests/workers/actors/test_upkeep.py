"""Periodic jobs with real relays and workers, and the pruning of old rows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

from db.engine import Database
from db.models import InboxEvent, Job, ScheduleRow
from db.redis.client import connect
from domain.jobs.schedules import Schedule
from domain.jobs.types import PRUNE
from tests.workers.failing_processes import die_between_tick_and_commit
from tests.workers.scenes import eventually, execute_sql, jobs_of
from workers.actors import upkeep
from workers.relay import Relay

PLAN_CREATED = b'{"id": "WH-1", "event_type": "BILLING.PLAN.CREATED", "resource": {"id": "I-ABC"}}'


def set_due(world, name="prune"):
    execute_sql(world, "UPDATE schedules SET next_at = clock_timestamp() WHERE name = %s", name)


def aged(world, days):
    """Make everything that has ended `days` days older."""
    older = f"make_interval(days => {days})"
    # An id begins with its creation time: the new ids sort before all others
    execute_sql(
        world,
        "UPDATE jobs SET id = 'job_00' || substr(id, 5),"
        f" done_at = done_at - {older} WHERE done_at IS NOT NULL AND id NOT LIKE 'job_00%%'",
    )
    execute_sql(
        world,
        f"UPDATE inbox SET id = 'evt_00' || substr(id, 5), handled_at = handled_at - {older}",
    )


def test_relay_declares_the_schedules_and_a_due_one_runs(world, processes):
    # Given a relay and a worker
    processes.relay()
    processes.worker("maintenance")
    assert eventually(lambda: "prune" in [one.name for one in world.read(ScheduleRow)])

    # When a tick is due, Then its job runs
    set_due(world)
    assert eventually(lambda: [one.outcome for one in jobs_of(world, "prune")] == ["done"])


def test_several_relays_stage_each_tick_once(world, urls):
    often = Schedule("often", 3_600, PRUNE)

    def relay():
        database = Database(urls.app_url, name="relay", pool_size=1)
        with closing(connect(urls.redis_url)) as client:
            made = Relay(database, client, (often,))
            made.tick()
            together.wait()
            # The relay skips a second tick within the same second
            made._next_tick = 0.0
            made.tick()
        database.close()

    for round_number in range(1, 4):
        together = threading.Barrier(5)
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(relay) for _ in range(4)]
            assert eventually(lambda: world.read(ScheduleRow) != [])
            set_due(world, "often")
            together.wait()
            for one in running:
                one.result()
        assert len(jobs_of(world, "prune")) == round_number
        world.due_now()
        world.run_due()


def test_relay_killed_during_a_tick_loses_and_doubles_nothing(world, processes):
    # Given a tick that is due, and a relay that dies after it staged the job
    first = processes.relay()
    assert eventually(lambda: "prune" in [one.name for one in world.read(ScheduleRow)])
    first.kill()
    set_due(world)
    assert processes.call(die_between_tick_and_commit).ended() == -9
    assert jobs_of(world, "prune") == []

    # When two other relays run, Then the job is staged once
    processes.relay()
    processes.relay()
    assert eventually(lambda: len(jobs_of(world, "prune")) == 1)
    processes.worker("maintenance")
    assert eventually(lambda: [one.outcome for one in jobs_of(world, "prune")] == ["done"])


def test_periodic_work_is_staged_while_redis_is_away(world):
    # Given a relay whose Redis cannot be reached, and a tick that is due
    with closing(connect("redis://127.0.0.1:1/0")) as nowhere:
        relay = Relay(world.database, nowhere)
        relay.tick()
        set_due(world)
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(relay.run_until, stop)
            assert eventually(lambda: len(jobs_of(world, "prune")) == 1)
            stop.set()
            running.result()


def test_pruning_deletes_only_what_its_retention_allows(world):
    # Given an event that was handled 91 days ago, with its job
    world.receive("WH-1", "BILLING.PLAN.CREATED", PLAN_CREATED)
    world.run_due()
    aged(world, 91)
    # And an event of today
    world.receive("WH-2", "BILLING.PLAN.CREATED", PLAN_CREATED.replace(b"WH-1", b"WH-2"))
    world.run_due()

    # When old rows are pruned
    world.stage("prune")
    assert world.run_due() == [("prune", "done")]

    # Then the old job and the old event's body are gone, but the event's row stays
    assert {job.id for job in jobs_of(world, "process_event")} == {"job_WH-2"}
    assert [one.body is None for one in world.read(InboxEvent, external_id="WH-1")] == [True]
    assert [one.body is None for one in world.read(InboxEvent, external_id="WH-2")] == [False]

    # And a repeat of the old event is still a duplicate, and another body still differs
    assert world.receive("WH-1", "BILLING.PLAN.CREATED", PLAN_CREATED) == "duplicate"
    assert world.receive("WH-1", "BILLING.PLAN.CREATED", PLAN_CREATED + b" ") == "differs"


def test_event_whose_body_is_pruned_is_unchanged_when_its_job_runs_again(world):
    world.receive("WH-1", "BILLING.PLAN.CREATED", PLAN_CREATED)
    world.run_due()
    aged(world, 91)
    world.stage("prune")
    world.run_due()
    event = world.event("WH-1")
    assert event.body is None

    again = world.stage("process_event", event_id=event.id)
    assert world.run_due() == [("process_event", "done")]
    assert world.job(again).outcome == "done"
    assert world.event("WH-1").outcome == event.outcome


def test_retention_times_follow_the_settings(world):
    world.receive("WH-1", "BILLING.PLAN.CREATED", PLAN_CREATED)
    world.run_due()
    aged(world, 10)
    longer = {"jobs_kept_days": 11, "payloads_kept_days": 11}
    world.executor.settings = world.settings.model_copy(update=longer)
    world.stage("prune")
    world.run_due()
    assert len(jobs_of(world, "process_event")) == 1

    shorter = {"jobs_kept_days": 9, "payloads_kept_days": 9}
    world.executor.settings = world.settings.model_copy(update=shorter)
    world.stage("prune")
    world.run_due()
    assert jobs_of(world, "process_event") == []
    assert world.event("WH-1").body is None


def test_long_backlog_is_pruned_in_batches_with_a_transaction_each(world, monkeypatch):
    # Given more than one batch of old jobs
    monkeypatch.setattr(upkeep, "_BATCH", 3)
    for _ in range(7):
        world.stage("prune")
    world.run_due()
    aged(world, 91)

    # When the first run is over, Then one batch is gone and the next run is staged
    first = world.stage("prune")
    assert world.executor.execute(first) == "done"
    old = [job for job in world.read(Job) if job.id.startswith("job_00")]
    assert len(old) == 4
    assert len([job for job in jobs_of(world, "prune") if job.done_at is None]) == 1

    # And the next runs remove the rest
    world.due_now()
    world.run_due()
    assert [job for job in world.read(Job) if job.id.startswith("job_00")] == []
    limit = world.database.now() - timedelta(days=1)
    assert all(job.done_at > limit for job in world.read(Job))


def test_several_workers_may_prune_at_once(world):
    for _ in range(20):
        world.stage("prune")
    world.run_due()
    aged(world, 91)
    ids = [world.stage("prune") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(world.executor.execute, ids))
    assert outcomes == ["done"] * 4
    assert {job.id for job in world.read(Job)} == set(ids)
