"""Stopped and killed processes: the processes that still run raise alerts."""

from __future__ import annotations

import os
import signal

import pytest

from db.processes import list_processes
from domain.alerts.queries import list_alerts
from tests.support.killable_redis import killable_redis
from tests.workers.scenes import eventually, execute_sql


def open_alert_kinds(world):
    return sorted(alert.kind for alert in world.database.run(list_alerts))


def make_old(world, kind):
    """Make the processes of a kind check at once, as if they had run for an hour."""
    assert eventually(lambda: _count(world, kind) > 0)
    execute_sql(
        world, "UPDATE processes SET started_at = started_at - interval '1 h' WHERE kind = %s", kind
    )


def make_silent(world, kind):
    """Make the processes of a kind silent for longer than is allowed."""
    execute_sql(
        world, "UPDATE processes SET seen_at = seen_at - interval '1 min' WHERE kind = %s", kind
    )


def _count(world, kind):
    return sum(one.kind == kind for one in world.database.run(list_processes))


def test_relay_alerts_a_stopped_safety_worker(world, processes, organization):
    # Given a relay and one safety worker, which is stopped
    worker = processes.worker("safety")
    processes.relay()
    make_old(world, "relay")
    assert eventually(lambda: _count(world, "worker") == 1)
    os.kill(worker.pid, signal.SIGSTOP)

    # When a safety job stays due, Then there is an alert, and later one that no worker is live
    job_id = world.stage("enforce_organization", organization_id=organization)
    execute_sql(world, "UPDATE jobs SET due_at = due_at - interval '1 min' WHERE id = %s", job_id)
    assert eventually(lambda: "safety_overdue" in open_alert_kinds(world))
    make_silent(world, "worker")
    assert eventually(lambda: open_alert_kinds(world) == ["queue_unserved", "safety_overdue"])

    # And when the worker continues, the job is done and the alerts are cleared
    os.kill(worker.pid, signal.SIGCONT)
    assert eventually(lambda: world.job(job_id).done_at is not None)
    assert eventually(lambda: open_alert_kinds(world) == [])


def test_safety_worker_alerts_a_killed_relay(world, processes):
    processes.worker("safety")
    relay = processes.relay()
    make_old(world, "worker")
    assert eventually(lambda: _count(world, "relay") == 1)
    relay.kill()
    make_silent(world, "relay")
    assert eventually(lambda: open_alert_kinds(world) == ["relay_silent"])
    # And another relay clears the alert
    processes.relay()
    assert eventually(lambda: open_alert_kinds(world) == [])


def test_process_that_stops_in_order_leaves_no_row(world, processes):
    worker, relay = processes.worker("billing"), processes.relay()
    assert eventually(lambda: (_count(world, "worker"), _count(world, "relay")) == (1, 1))
    assert (worker.stop(), relay.stop()) == (0, 0)
    assert (_count(world, "worker"), _count(world, "relay")) == (0, 0)


@pytest.mark.parametrize("kind", ["worker", "relay"])
def test_missing_redis_is_alerted(world, processes, kind):
    # Given a process whose Redis is full
    with killable_redis() as server:
        server.make_full()
        environment = {"REDIS_URL": server.url}
        if kind == "worker":
            processes.worker("safety", **environment)
            processes.relay()
        else:
            processes.relay(**environment)
        make_old(world, "relay")
        # Then an alert is open until Redis accepts work again
        assert eventually(lambda: "redis_away" in open_alert_kinds(world))
        server.mend()
        assert eventually(lambda: "redis_away" not in open_alert_kinds(world))
