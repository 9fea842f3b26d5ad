"""Relay and worker recover from a database host that vanished silently."""

from __future__ import annotations

from tests.workers.scenes import eventually

#: The limits of the longest transactions, doubled for a busy machine.
RELAY_SECONDS, WORKER_SECONDS = 30.0, 70.0


def is_done(world, job_id):
    return world.job(job_id).done_at is not None


def vanish_and_return(world, way, name, organization):
    """Silence the connections in use, wait for a job in vain, and allow new ones."""
    way.deaf.set()
    lost = world.stage(name, organization_id=organization)
    assert not eventually(lambda: is_done(world, lost), limit_seconds=4)
    way.deaf.clear()
    return lost


def test_relay_notifies_again_once_the_database_is_back(world, processes, organization, way):
    # Given a relay that waits for an answer from a host that has vanished
    processes.worker("safety")
    processes.relay(DATABASE_URL=way.url)
    first = world.stage("enforce_organization", organization_id=organization)
    assert eventually(lambda: is_done(world, first))
    lost = vanish_and_return(world, way, "enforce_organization", organization)
    # When the database can be reached again, Then the relay continues to notify
    assert eventually(lambda: is_done(world, lost), limit_seconds=RELAY_SECONDS)


def test_worker_runs_jobs_again_once_the_database_is_back(world, processes, organization, way):
    # Given a worker whose threads all wait for an answer from a host that has vanished
    processes.worker("billing", threads=1, DATABASE_URL=way.url)
    processes.relay()
    first = world.stage("decide_top_up", organization_id=organization)
    assert eventually(lambda: is_done(world, first))
    lost = vanish_and_return(world, way, "decide_top_up", organization)
    # When the database can be reached again, Then the worker continues
    assert eventually(lambda: is_done(world, lost), limit_seconds=WORKER_SECONDS)
