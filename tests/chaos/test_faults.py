"""The plan of faults: it depends only on the seed, and contains every kind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from base.clock import wait_until
from chaos.faults import KINDS, PlannedFault, plan, strike
from local.supervisor import ChildProcess, Supervisor


def test_seed_gives_the_same_faults_at_the_same_times():
    # When one seed is planned twice, and another seed once
    first, again, other = plan(1, 120), plan(1, 120), plan(2, 120)

    # Then the same seed gives the same plan, and the other seed another plan
    assert first == again
    assert [one.kind for one in first] != [one.kind for one in other]


def test_every_kind_of_fault_strikes_within_a_few_minutes():
    # When some minutes are planned
    planned = plan(1, 240)

    # Then no kind is missing, and no fault begins after the end
    assert {one.kind for one in planned} == set(KINDS)
    assert all(0 < one.at < 240 for one in planned)


def test_long_fault_is_not_planned_when_it_could_not_end_in_time():
    # When a short run is planned
    kinds = [one.kind for one in plan(1, 30)]

    # Then no worker is frozen for longer than the run
    assert kinds
    assert "worker_frozen_past_lease" not in kinds


@pytest.mark.parametrize("kind", ["worker_killed", "relay_frozen", "worker_frozen_asking"])
def test_fault_is_not_struck_when_no_process_runs(world, urls, kind):
    # Given a system in which no process runs
    system = SimpleNamespace(
        supervisor=Supervisor(), control=world.sandbox.control, owner_url=urls.owner_url
    )
    # When the fault is carried out, then it is reported as not struck
    assert not strike(system, PlannedFault(0.0, kind, "1")).struck


def test_second_pause_does_not_wake_a_paused_worker():
    # Given a worker that was frozen for longer than any lease
    supervisor = Supervisor()
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    supervisor.start(ChildProcess("billing-1", argv, dict(os.environ)))
    system = SimpleNamespace(supervisor=supervisor)
    try:
        long = strike(system, PlannedFault(0.0, "worker_frozen_past_lease", "1"))
        assert (long.struck, long.seconds) == (True, 37.0)
        assert wait_until(lambda: state_of(supervisor.pid("billing-1")) == "T", limit_seconds=10)
        # When it should be frozen again for less time, then nothing is done that would need an undo
        short = strike(system, PlannedFault(0.0, "worker_frozen", "1"))
        assert (short.struck, short.seconds) == (False, 0.0)
        # And it wakes when the first freeze is over
        long.undo()
        assert wait_until(lambda: state_of(supervisor.pid("billing-1")) != "T", limit_seconds=10)
    finally:
        supervisor.kill("billing-1", signal.SIGCONT)
        supervisor.stop_all()


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_plan_more_than_three_hundred_faults(seed):
    # Some faults find no target and are not counted
    assert len(plan(seed, 600)) > 320
