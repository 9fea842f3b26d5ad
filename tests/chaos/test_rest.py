"""Rest: what the count reads no longer changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from base.clock import wait_until
from chaos.rest import something_waits, stand_still
from local.supervisor import ChildProcess, Supervisor


@pytest.fixture
def sleepers():
    """A supervisor of a worker and the sandbox, neither of which does anything."""
    supervisor = Supervisor()
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    for name in ("safety-1", "sandbox"):
        supervisor.start(ChildProcess(name, argv, dict(os.environ)))
        assert wait_until(lambda name=name: supervisor.alive(name), limit_seconds=10)
    yield supervisor
    supervisor.stop_all()


def test_processes_are_stopped_when_the_count_begins(sleepers):
    # Given a system in which nothing waits
    system = SimpleNamespace(supervisor=sleepers)
    # When it is stopped, then all processes but the sandbox are stopped
    stand_still(system, 5, lambda _: False)
    assert wait_until(lambda: state(sleepers, "safety-1") == "T", limit_seconds=10)
    assert state(sleepers, "sandbox") != "T"


def test_processes_run_on_when_work_came_before_they_were_stopped(sleepers):
    # Given a system in which a job is staged between the last check and the stop. A worker must
    # run on to do it
    system = SimpleNamespace(supervisor=sleepers)
    looks = []

    def waits(_):
        looks.append(state(sleepers, "safety-1") == "T")
        was_stopped = True in looks
        ran_on = was_stopped and False in looks[looks.index(True) :]
        return was_stopped and not ran_on

    # When it is to be stopped, then the worker is stopped, runs on, and is stopped at last
    stand_still(system, 60, waits)
    changes = [one for one, before in zip(looks, [None, *looks], strict=False) if one != before]
    assert changes == [False, True, False, True]


def test_processes_are_stopped_at_the_limit_although_work_waits(sleepers):
    system = SimpleNamespace(supervisor=sleepers)
    stand_still(system, 0.1, lambda _: True)
    assert wait_until(lambda: state(sleepers, "safety-1") == "T", limit_seconds=10)


def test_job_that_is_staged_is_waited_for(world):
    # Given a system without calls, at rest
    system = SimpleNamespace(control=world.sandbox.control, do=world.do)
    assert not something_waits(system)
    # When a schedule stages a job, then the system is not at rest until the job is done
    world.stage("reconcile_calls")
    assert something_waits(system)
    world.run_due()
    assert not something_waits(system)


def state(supervisor, name):
    return Path(f"/proc/{supervisor.pid(name)}/stat").read_text().rpartition(")")[2].split()[0]
