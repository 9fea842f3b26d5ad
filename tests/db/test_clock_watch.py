"""A step of the database's clock is noticed once; a paused process is no step.

The database's clock runs evenly here. A watch whose process clock jumps ahead sees a step back.
"""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text

from db.clock_watch import ClockWatch
from tests.db.support import at_once

HOUR = 3_600.0


class Own:
    """A process's monotonic clock, which a test moves."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead


@pytest.fixture
def settled():
    return []


@pytest.fixture
def watch(database, settled):
    def make():
        own = Own()
        made = ClockWatch(
            database, lambda _, step: settled.append(step), every_seconds=0, monotonic=own
        )
        made.own = own
        return made

    return make


def seen(database, seconds):
    """Set the highest instant that was seen to so many seconds from now."""
    database.run(
        lambda s: s.execute(
            text(
                "UPDATE database_clock SET seen_at = clock_timestamp() + make_interval(secs => :s)"
            ),
            {"s": seconds},
        )
    )


def ahead(database):
    """Return by how many seconds the highest seen instant is ahead of the clock."""
    return database.run(
        lambda s: s.execute(
            text("SELECT extract(epoch FROM seen_at - clock_timestamp()) FROM database_clock")
        ).scalar_one()
    )


def test_watch_notices_nothing_while_the_clock_runs(database, watch, settled):
    first = watch()
    for _ in range(3):
        assert first.check() is None
    seen(database, -30)
    assert first.check() is None
    assert settled == []
    assert abs(ahead(database)) < 30


def test_step_back_is_settled_once_when_many_watch(database, watch, settled):
    # Given watches of several processes
    watches = [watch() for _ in range(4)]
    for one in watches:
        one.check()
    # When the database's clock steps back by an hour for all of them
    seen(database, HOUR)
    for one in watches:
        one.own.ahead += HOUR
    at_once([one.check for one in watches])
    # Then one of them has settled the step, with its size
    assert [round(step.seconds) for step in settled] == [-3600]
    (step,) = settled
    assert (step.before - step.after).total_seconds() == pytest.approx(HOUR, abs=5)
    assert step.within_seconds >= 0
    for one in watches:
        assert one.check() is None
    assert len(settled) == 1


def test_step_back_is_noticed_by_a_process_that_starts_after_it(database, watch, settled):
    watch().check()
    seen(database, HOUR)
    assert round(watch().check().seconds) == -3600
    assert watch().check() is None
    assert len(settled) == 1


def test_step_forward_is_noticed_once(database, watch, settled):
    watches = [watch() for _ in range(2)]
    for one in watches:
        one.check()
    seen(database, -HOUR)
    for one in watches:
        one.own.ahead -= HOUR
    at_once([one.check for one in watches])
    assert [round(step.seconds) for step in settled] == [3600]


def test_process_that_slept_takes_its_pause_for_no_step(database, watch, settled):
    # Given a process whose clock stopped for an hour, while others watched
    slept, other = watch(), watch()
    slept.check()
    slept.own.ahead -= HOUR
    other.check()
    seen(database, 0)
    assert slept.check() is None
    assert settled == []


def test_clock_that_was_not_watched_for_an_hour_has_not_stepped(database, watch, settled):
    first = watch()
    first.check()
    # Both clocks advanced while the database could not be reached
    seen(database, -HOUR)
    assert first.check() is None
    assert watch().check() is None
    assert settled == []


def test_step_is_noticed_again_when_settling_failed(database, watch, settled):
    one = watch()
    one.check()
    seen(database, HOUR)
    one.own.ahead += HOUR

    def broken(*_):
        raise RuntimeError("not now")

    settle, one._settle_step = one._settle_step, broken
    assert one.check() is None
    assert ahead(database) > HOUR - 30
    one._settle_step = settle
    assert round(one.check().seconds) == -3600


def test_clock_is_compared_only_once_in_a_while(database, settled):
    own = Own()
    one = ClockWatch(
        database, lambda _, step: settled.append(step), every_seconds=HOUR, monotonic=own
    )
    one.check()
    seen(database, HOUR)
    own.ahead += HOUR
    assert one.check() is None
    assert settled == []


def test_step_back_is_as_large_as_the_process_knows_better(database, watch):
    # Given a process that has watched the clock, and a stored instant that is older
    one = watch()
    one.check()
    seen(database, HOUR - 100)
    one.own.ahead += HOUR
    # Then the process's clock determines the size
    assert one.check().seconds == pytest.approx(-HOUR, abs=20)


def test_step_forward_is_no_larger_than_the_unwatched_time(database, watch):
    # Given a process that slept for an hour, while others saw the clock until 100 s ago
    one = watch()
    one.check()
    seen(database, -100)
    one.own.ahead -= HOUR
    assert one.check().seconds == pytest.approx(100, abs=20)


def test_step_reports_how_long_ago_it_was_at_most(database, watch, settled):
    # Given a process that compared 30 s ago, and one that has just started
    one = watch()
    one.check()
    one.own.ahead += 30
    seen(database, HOUR)
    assert one.check().within_seconds == pytest.approx(30, abs=20)
    seen(database, HOUR)
    young = ClockWatch(database, lambda _, step: settled.append(step), every_seconds=7)
    assert young.check().within_seconds == 7
