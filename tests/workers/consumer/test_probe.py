"""The probe reports whether Redis accepts work, in every state of Redis."""

from __future__ import annotations

import pytest

from db.redis.client import connect
from tests.support.killable_redis import killable_redis
from tests.support.wrong_server import answering
from tests.workers.scenes import eventually
from workers.consumer.probe import RedisProbe


@pytest.fixture
def own_redis():
    with killable_redis() as server:
        yield server


@pytest.mark.parametrize("state", ["stopped", "killed", "full", "read_only"])
def test_probe_fails_while_redis_accepts_no_write(own_redis, state):
    probe = RedisProbe(own_redis.url, "test")
    assert [probe.takes_work(), probe.takes_work()] == [True, True]
    getattr(own_redis, f"make_{state}")()
    assert [probe.takes_work(), probe.takes_work()] == [False, False]
    probe.close()


@pytest.mark.parametrize(
    "answer", [b":x\r\n", b"$x\r\n", b"*1\r\n$1\r\na\r\n", b"HTTP/1.1 502\r\n"]
)
def test_probe_fails_when_the_answer_is_not_from_redis(answer):
    with answering(answer) as url:
        probe = RedisProbe(url, "test")
        assert [probe.takes_work(), probe.takes_work()] == [False, False]
        probe.close()


def test_probe_finds_no_loss_when_a_writes_outcome_is_unknown(own_redis):
    # Given a write that a stopped Redis carries out later
    probe = RedisProbe(own_redis.url, "test")
    assert probe.takes_work()
    own_redis.make_stopped()
    assert not probe.takes_work()
    own_redis.mend()
    with connect(own_redis.url) as client:
        assert eventually(lambda: client.dbsize() == 1)
    # Then the probe detects no loss, because Redis has the write now
    assert probe.takes_work()
    probe.close()


def test_key_of_a_worker_that_has_ended_disappears(own_redis):
    probe = RedisProbe(own_redis.url, "test")
    assert probe.takes_work()
    with connect(own_redis.url) as client:
        assert 0 < client.pttl("holdfast:probe:test") <= 60_000
    probe.close()


def test_probe_fails_once_when_redis_lost_the_last_write(own_redis):
    probe = RedisProbe(own_redis.url, "test")
    assert probe.takes_work()
    with connect(own_redis.url) as client:
        client.flushall()
    assert [probe.takes_work(), probe.takes_work()] == [False, True]
    probe.close()
