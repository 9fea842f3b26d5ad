"""Redis behind Sentinels: the master is killed, and every job is still done once."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis

from db.models import JobAttempt
from db.redis.circuits import HELD, Circuits
from db.redis.client import EPOCH_KEY, Notifier, connect, run_id
from domain.jobs.staging import stage
from domain.jobs.types import ENFORCE_ORGANIZATION
from tests.db.redis.support import BULK, MONEY
from tests.support.sentinels import FAILOVER_SECONDS, Service, sentinels_missing
from tests.support.servers import server_folder
from tests.support.world import make_organization
from tests.workers.scenes import eventually

pytestmark = pytest.mark.skipif(bool(sentinels_missing()), reason=sentinels_missing())


@pytest.fixture
def service():
    with server_folder() as folder:
        made = Service(folder)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.mark.timeout(300)
def test_jobs_staged_before_during_and_after_a_failover_are_each_done_once(
    world, processes, service
):
    # Given a worker and a relay that know Redis by its Sentinels, and a process that notifies
    organization = make_organization(world.database)
    master = service.master()
    processes.worker("safety", REDIS_URL=service.url)
    relay = processes.relay(REDIS_URL=service.url)
    notifier = Notifier(service.url)
    world.database.after_commit = notifier.notify
    staged = []

    def stage_some() -> None:
        staged.extend(
            world.do(
                lambda session, _: stage(
                    session, ENFORCE_ORGANIZATION, organization, organization_id=organization
                )
            )
            for _ in range(20)
        )

    def all_done() -> bool:
        return all(world.job(job_id).outcome == "done" for job_id in staged)

    stage_some()
    assert eventually(all_done, FAILOVER_SECONDS)

    # When the master is killed while jobs are staged, and a replica takes over
    stage_some()
    service.kill(master)
    stage_some()
    assert eventually(lambda: service.master() not in (master, None), FAILOVER_SECONDS), (
        service.logs()
    )
    stage_some()

    # Then every job is done, by one attempt each
    assert eventually(all_done, 120), (relay.output(), service.logs())
    attempts = world.read(JobAttempt)
    assert sorted(one.job_id for one in attempts if one.job_id in staged) == sorted(staged)

    # And the relay has noticed the new master, so it notified again of what may be lost
    with service.client(service.master()) as new:
        assert eventually(lambda: new.get(EPOCH_KEY) == run_id(new).encode(), FAILOVER_SECONDS)

    # And when the old master is back as a replica, the service continues
    service.start_server(master)
    with service.client(master) as old:
        assert eventually(lambda: old.info("replication")["role"] == "slave", FAILOVER_SECONDS)
    stage_some()
    assert eventually(all_done, FAILOVER_SECONDS)
    notifier.close()


@pytest.mark.timeout(300)
def test_circuits_follow_a_failover(service, settings):
    # Given circuit breakers in this Redis, and an account that is held back
    fleet = Circuits.from_settings(settings.model_copy(update={"redis_url": service.url}))
    master = service.master()
    fleet.leave(BULK, "", "answered", 60)
    with closing(connect(service.url)) as client:
        assert client.zcard(HELD) == 1
        client.wait(1, 20_000)

        # When the master dies, Then calls for money still go out
        service.kill(master)
        fleet.enter(MONEY, 1.0)
        assert eventually(lambda: service.master() not in (master, None), FAILOVER_SECONDS)

        # And the new master has the account that is held back
        assert eventually(lambda: _members(client) == 1, FAILOVER_SECONDS)
    fleet.close()


def _members(client) -> int:
    try:
        return client.zcard(HELD)
    except redis.RedisError:
        return -1
