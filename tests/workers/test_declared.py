"""Every declared job has one actor, which takes the declared arguments."""

from __future__ import annotations

import inspect

import pytest

from base.enums import Queue
from db.redis.client import NAMESPACE
from domain.jobs.types import JOB_TYPES
from workers.actors import ACTORS
from workers.consumer.broker import UNKNOWN_JOB
from workers.process import build_broker


def test_there_is_exactly_one_actor_for_each_declared_job():
    assert set(ACTORS) == set(JOB_TYPES)
    assert len({id(actor) for actor in ACTORS.values()}) == len(JOB_TYPES)


@pytest.mark.parametrize("name", sorted(JOB_TYPES))
def test_actor_is_named_as_its_job_and_takes_the_declared_arguments(name):
    parameters = list(inspect.signature(ACTORS[name]).parameters.values())

    assert ACTORS[name].__name__ == name
    assert [one.name for one in parameters] == ["run", *JOB_TYPES[name].arguments]
    assert all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)


def test_broker_knows_every_job_with_its_limit_and_never_retries(world, urls):
    # When a worker of one queue builds its broker
    broker = build_broker(urls.redis_url, world.executor, {Queue.SAFETY})

    # Then it accepts messages of any job, and nothing but the job's row decides about retries
    assert set(broker.get_declared_actors()) == {*JOB_TYPES, UNKNOWN_JOB}
    for name, job in JOB_TYPES.items():
        assert broker.get_actor(name).options["time_limit"] == job.limit_seconds * 1000
    loaded = {type(one).__name__ for one in broker.middleware}
    assert loaded == {"TimeLimit", "ShutdownNotifications"}
    assert broker.namespace == NAMESPACE
    broker.close()
