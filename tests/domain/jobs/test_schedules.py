"""Schedules: each tick stages its job once, and missed ticks are not made up for."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy import text

from db.models import Job, ScheduleRow
from domain.jobs import schedules
from domain.jobs.schedules import SCHEDULES, Schedule
from domain.jobs.types import JOB_TYPES, PRUNE
from tests.db.jobs.support import change, claim, fail, finish
from tests.db.support import at_once, holding


@pytest.fixture
def hourly(shared):
    """A schedule that was declared and is not due yet."""
    made = Schedule(f"test_{secrets.token_hex(4)}", 3_600, PRUNE)
    declare(shared, made)
    return made


def declare(database, *declared):
    database.run(lambda s: schedules.declare(s, declared))


def tick(database, *declared):
    return database.run(lambda s: schedules.tick(s, declared))


def at(database, name):
    return database.run(lambda s: s.get(ScheduleRow, name))


def set_back(database, name, interval, column="next_at"):
    statement = f"UPDATE schedules SET {column} = clock_timestamp() - CAST(:i AS interval)"
    database.run(
        lambda s: s.execute(text(f"{statement} WHERE name = :name"), {"i": interval, "name": name})
    )


def seconds_to_next(database, name):
    return (at(database, name).next_at - database.now()).total_seconds()


def test_a_new_schedule_appears_and_ticks_first_when_its_interval_is_over(shared, hourly):
    assert 3_500 < seconds_to_next(shared, hourly.name) <= 3_600
    assert at(shared, hourly.name).last_at is None
    assert tick(shared, hourly) == []


def test_a_tick_stages_its_job_and_sets_the_next_in_step(shared, hourly):
    set_back(shared, hourly.name, "10 minutes")
    due_at = at(shared, hourly.name).next_at

    (job_id,) = tick(shared, hourly)

    job = shared.run(lambda s: s.get_one(Job, job_id))
    assert (job.name, job.queue, job.kwargs) == ("prune", "maintenance", {})
    assert job.cause == f"schedule:{hourly.name}"
    row = at(shared, hourly.name)
    assert (row.next_at - due_at).total_seconds() == 3_600
    assert row.last_job_id == job_id
    assert row.last_at is not None
    assert tick(shared, hourly) == []


def test_one_tick_happens_after_hours_of_downtime(shared, hourly):
    set_back(shared, hourly.name, "9 hours 59 minutes")
    assert len(tick(shared, hourly)) == 1
    assert tick(shared, hourly) == []
    assert 0 < seconds_to_next(shared, hourly.name) <= 60


def test_many_at_once_stage_a_tick_once(shared, hourly):
    for _ in range(5):
        row = at(shared, hourly.name)
        if row.last_job_id:
            finish(shared, claim(shared, row.last_job_id))
        set_back(shared, hourly.name, "1 second")
        ticks = at_once([lambda: tick(shared, hourly)] * 8)
        assert sum(len(staged) for staged in ticks) == 1, ticks


def test_a_tick_that_is_not_committed_is_left_to_another(shared, hourly):
    set_back(shared, hourly.name, "1 second")
    before = shared.run(lambda s: s.query(Job).count())
    # Given a relay that has ticked and dies before its commit
    with holding(shared, lambda s: schedules.tick(s, (hourly,))):
        # When another relay ticks meanwhile, it does not wait and does nothing
        assert tick(shared, hourly) == []
    # Then the tick happens once
    assert shared.run(lambda s: s.query(Job).count()) == before
    assert len(tick(shared, hourly)) == 1


def test_tick_stages_nothing_while_its_last_job_is_open(shared, hourly):
    # Given a job of the last tick that no worker has claimed
    set_back(shared, hourly.name, "1 second")
    (job_id,) = tick(shared, hourly)
    set_back(shared, hourly.name, "1 second")

    # When the next tick is due, Then it stages nothing
    assert tick(shared, hourly) == []
    assert seconds_to_next(shared, hourly.name) > 3_000
    assert at(shared, hourly.name).last_job_id == job_id

    # And once that job is over or dead, the ticks continue
    fail(shared, claim(shared, job_id), retry=None)
    set_back(shared, hourly.name, "1 second")
    assert len(tick(shared, hourly)) == 1


def test_a_schedule_that_a_relay_does_not_know_is_left_alone_by_it(shared, hourly):
    set_back(shared, hourly.name, "1 second")
    assert tick(shared) == []
    assert seconds_to_next(shared, hourly.name) < 0


def test_removed_schedule_disappears_when_no_relay_has_declared_it(shared, hourly):
    other = Schedule(f"{hourly.name}_other", 60, PRUNE)
    # Given a schedule that is no longer declared: an older relay may still know it
    declare(shared, other)
    assert at(shared, hourly.name) is not None
    set_back(shared, hourly.name, "11 minutes", "declared_at")
    set_back(shared, other.name, "11 minutes", "declared_at")

    # When the remaining relays have declared theirs, Then it is deleted, and theirs are kept
    declare(shared, other)
    assert at(shared, hourly.name) is None
    assert at(shared, other.name) is not None


def test_a_schedule_keeps_its_next_time_when_it_is_declared_again(shared, hourly):
    set_back(shared, hourly.name, "-10 minutes")
    before = at(shared, hourly.name).next_at
    declare(shared, hourly)
    assert at(shared, hourly.name).next_at == before


def test_a_shorter_interval_counts_from_now_on(shared, hourly):
    shorter = Schedule(hourly.name, 60, PRUNE)
    declare(shared, shorter)
    assert 0 < seconds_to_next(shared, hourly.name) <= 60
    set_back(shared, hourly.name, "1 second")
    tick(shared, shorter)
    assert at(shared, hourly.name).every_seconds == 60


def test_every_schedule_names_a_declared_job_without_arguments_once():
    assert len({one.name for one in SCHEDULES}) == len(SCHEDULES)
    for one in SCHEDULES:
        assert JOB_TYPES[one.job.name] is one.job
        assert one.job.arguments == ()
        assert one.every_seconds >= 1


def test_job_is_not_blocked_by_the_schedule_that_staged_it(shared, hourly):
    set_back(shared, hourly.name, "1 second")
    (job_id,) = tick(shared, hourly)
    with holding(shared, lambda s: schedules.tick(s, (hourly,))):
        change(shared, job_id, "due_at = clock_timestamp()")
        assert finish(shared, claim(shared, job_id))


def test_schedule_is_due_when_it_is_further_ahead_than_its_interval(shared, hourly):
    # Given a tick three intervals ahead, as after the clock was set back
    set_back(shared, hourly.name, "-3 hours")
    assert len(tick(shared, hourly)) == 1
    assert 0 < seconds_to_next(shared, hourly.name) <= 3_600
