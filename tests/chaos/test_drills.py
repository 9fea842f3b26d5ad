"""Drills: a closing event that does not freeze its wallet in time counts as lost."""

from __future__ import annotations

import os
import random
import signal
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from base.clock import wait_until
from base.enums import FreezeReason
from base.operators import Operator
from chaos import drills
from chaos.drills import safety_worker_stopped, send_closings_during, valkey_full, valkey_hung
from chaos.facts import Customer
from chaos.processes import is_stopped
from chaos.servers import KillableServer
from db.redis.client import connect
from domain.wallet import freezes as wallet_freezes
from local.supervisor import ChildProcess, Supervisor
from tests.chaos.accepting_server import accepting_server
from tests.support.servers import server_folder


@contextmanager
def nothing_broken(_system, _chance):
    yield "nothing is broken"


@pytest.fixture
def supervisor():
    """Two safety workers that do nothing."""
    workers = Supervisor()
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    for name in ("safety-1", "safety-2"):
        workers.start(ChildProcess(name, argv, dict(os.environ)))
        assert wait_until(lambda name=name: workers.alive(name), limit_seconds=10)
    yield workers
    for name in workers.names():
        workers.kill(name, signal.SIGCONT)
    workers.stop_all()


@pytest.fixture
def system(world, supervisor):
    """A system with one customer. Its ingress accepts everything and does nothing."""
    made = world.customer(micros=0)
    customer = Customer(made.id, False, made.sids[0], made.campaign_ids, made.subscription_id)
    with accepting_server() as port:
        world.sandbox.control("POST", "/target", {"url": f"http://127.0.0.1:{port}"})
        yield SimpleNamespace(
            supervisor=supervisor,
            drilled=[customer],
            do=world.do,
            control=world.sandbox.control,
        )


def test_closing_event_is_lost_when_its_wallet_is_not_frozen_in_time(system, monkeypatch):
    monkeypatch.setattr(drills, "OVERLOADED", 1e9)
    # Given a system in which no worker does anything
    done = send_closings_during(nothing_broken, within_seconds=0.3)(system, random.Random(1))
    # When its customer's subscription is suspended, then a problem names the organization
    (problem,) = done.problems
    assert (problem.kind, problem.ids) == ("lost", (system.drilled[0].organization_id,))
    assert "not frozen within 0.3 s (nothing is broken)" in problem.text
    assert (done.struck, done.closed_seconds) == (True, ())


def test_late_freeze_is_reported_and_not_counted_under_overload(system, monkeypatch):
    monkeypatch.setattr(drills, "OVERLOADED", -1.0)
    done = send_closings_during(nothing_broken, within_seconds=0.3)(system, random.Random(1))
    assert done.problems == ()
    assert "1 are late, and not counted" in done.text


def test_closing_event_is_timed_when_its_wallet_is_frozen(system, world):
    # Given a system that freezes the wallet when the event is accepted
    organization_id = system.drilled[0].organization_id

    def control(method, path, body=None):
        answer = world.sandbox.control(method, path, body)
        if path.endswith("/redeliver"):
            freeze(world, organization_id)
        return answer

    system.control = control
    # When the subscription is suspended, then there is no problem, and the time is recorded
    done = send_closings_during(nothing_broken, within_seconds=60)(system, random.Random(1))
    assert done.problems == ()
    (seconds,) = done.closed_seconds
    assert 0 <= seconds < 60
    # And a customer whose wallet is already frozen is not suspended again
    again = send_closings_during(nothing_broken, within_seconds=60)(system, random.Random(1))
    assert (again.struck, again.problems) == (False, ())


def test_one_safety_worker_is_stopped_while_events_arrive(system):
    pids = [system.supervisor.pid(name) for name in ("safety-1", "safety-2")]
    with safety_worker_stopped(system, random.Random(1)) as text:
        assert wait_until(lambda: sum(map(is_stopped, pids)) == 1, limit_seconds=10)
        assert text in ("SIGSTOP: safety-1", "SIGSTOP: safety-2")
    assert wait_until(lambda: not any(map(is_stopped, pids)), limit_seconds=10)


def test_valkey_refuses_writes_while_it_is_full_and_is_silent_while_hung():
    with server_folder() as folder:
        server = KillableServer(Path(folder) / "valkey", postgres=False)
        server.start()
        system = SimpleNamespace(valkey=server)
        try:
            with closing(connect(server.url, timeout_seconds=0.5)) as client:
                with valkey_full(system, random.Random(1)), pytest.raises(redis.OutOfMemoryError):
                    client.set("key", "value")
                with valkey_hung(system, random.Random(1)), pytest.raises(redis.TimeoutError):
                    client.get("key")
            # And it accepts writes again
            with closing(connect(server.url)) as client:
                assert client.set("key", "value")
        finally:
            server.stop()


def freeze(world, organization_id):
    world.do(
        lambda session, now: wallet_freezes.freeze(
            session,
            organization_id,
            FreezeReason.SUBSCRIPTION_INACTIVE,
            operator=Operator("test", "suspended"),
            now=now,
        )
    )
