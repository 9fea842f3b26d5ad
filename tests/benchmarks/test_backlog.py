"""The benchmark of a backlog: what it stores, how it ages, and what it checks."""

from __future__ import annotations

import threading

import pytest

from benchmarks.backlog import check_effects, make_old, store_callbacks
from db.models import InboxEvent, Job
from workers.relay import Relay


@pytest.fixture
def running_relay(world, redis_client):
    stop = threading.Event()
    relay = Relay(world.database, redis_client)
    thread = threading.Thread(target=relay.run_until, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


def test_callbacks_have_one_job_each_and_one_effect(world, system):
    jobs = store_callbacks(system, 3)
    assert len(world.read(InboxEvent, source="twilio")) == 3
    assert [world.job(one.job_id).queue for one in jobs] == ["callbacks"] * 3
    assert [world.executor.execute(one.job_id) for one in jobs] == ["done"] * 3
    check_effects(system, 3)
    with pytest.raises(SystemExit, match="3 effects of 4 callbacks"):
        check_effects(system, 4)


def test_old_callbacks_are_ten_minutes_old_and_were_notified(world, system, running_relay):
    (one,) = store_callbacks(system, 1)
    staged_at = world.job(one.job_id).staged_at
    make_old(system)
    (job,) = world.read(Job, id=one.job_id)
    assert (staged_at - job.staged_at).total_seconds() == 600
    # After 2, 17, 47, 107, 227 and 467 seconds.
    assert job.rings == 6
