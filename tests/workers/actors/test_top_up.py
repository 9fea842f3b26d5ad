"""Automatic top-up decides once, even if its job repeats or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from sqlalchemy.orm import Session

from base.enums import Provider
from base.operators import Operator
from db.engine import Database, clock
from db.models import Alert, TopUpDecision, TopUpSettings
from domain.top_ups import decisions as top_ups
from domain.top_ups import settings as top_up_settings
from domain.top_ups.rule import TopUpTerms
from domain.top_ups.settings import Method
from domain.wallet import operations as wallet
from domain.wallet import thresholds
from local import ROOT
from tests.support.world import World
from tests.workers.scenes import another_thread, eventually, jobs_of

PAYPAL = frozenset({Provider.PAYPAL})
TERMS = TopUpTerms(
    below_micros=20_000_000, amount_micros=50_000_000, day_cap_micros=10**8, day_cap_count=2
)
#: Decides as the actor does, prints that, and waits to be killed before the commit.
VICTIM = """
import sys, time
from sqlalchemy.orm import Session
from base.enums import Provider
from db.engine import Database, clock
from domain.top_ups.decisions import decide
database = Database(sys.argv[1], name="victim", pool_size=1)
with Session(database.engine) as session:
    decide(session, sys.argv[2], clock(session), chargeable={Provider.PAYPAL})
    print("decided", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def charging(world):
    """The world with a provider that can charge a stored payment method."""
    others = tuple(replace(one, chargeable=PAYPAL) for one in world.providers.others)
    providers = replace(world.providers, chargeable=PAYPAL, others=others)
    return World(world.owner_url, world.database, world.settings, world.sandbox, providers)


@pytest.fixture
def low(charging):
    """A customer whose debit crossed the automatic top-up's limit; its job is staged."""
    customer = charging.customer(micros=50_000_000)
    charging.do(
        lambda session, now: top_up_settings.switch_on(
            session,
            customer.id,
            TERMS,
            Method(Provider.PAYPAL, "card"),
            chargeable=PAYPAL,
            operator=Operator("ann", "agreed"),
            now=now,
        )
    )
    spend(charging, customer.id, 40_000_000)
    return customer.id


def spend(world, organization_id, micros):
    world.do(
        lambda session, now: wallet.debit(
            session,
            organization_id,
            key=f"spend:{now.isoformat()}",
            amount_micros=micros,
            currency="USD",
            now=now,
        )
    )


def decisions(world, organization_id):
    return world.read(TopUpDecision, organization_id=organization_id)


def test_crossing_becomes_a_decision(charging, low):
    (job,) = jobs_of(charging, "decide_top_up")
    assert charging.run_due() == [("decide_top_up", "done")]
    (decision,) = decisions(charging, low)
    assert (decision.state, decision.amount_micros) == ("decided", 50_000_000)
    # The job that ends the decision if it is never charged is staged, with its cause.
    (_, look) = jobs_of(charging, "decide_top_up")
    assert (look.cause, look.correlation_id) == (job.id, job.correlation_id)
    # No money has moved.
    assert charging.wallet(low).balance_micros == 10_000_000


def test_job_delivered_twice_in_turn_or_at_once_decides_once(charging, low):
    (job,) = jobs_of(charging, "decide_top_up")
    twin = charging.stage("decide_top_up", organization_id=low)
    with another_thread() as start:
        ids = [job.id, job.id, twin, twin]
        outcomes = [start(charging.executor.execute, one) for one in ids]
        assert sorted(one.result() for one in outcomes) == ["done", "done", "taken", "taken"]
    assert charging.executor.execute(job.id) == "taken"
    assert len(decisions(charging, low)) == 1


def test_decision_of_a_worker_killed_before_its_commit_is_made_again(charging, low, urls):
    # Given a process that has decided and not committed
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, urls.app_url, low],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert victim.stdout.readline() == "decided\n"
    finally:
        # When it is killed
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        victim.stdout.close()
    # Then nothing was decided, and the job decides with the first idempotency key
    assert decisions(charging, low) == []
    assert eventually(lambda: charging.run_due() is not None and len(decisions(charging, low)) == 1)
    assert decisions(charging, low)[0].idempotency_key == f"topup:{low}:1:1"


def test_debit_whose_connection_dies_before_its_commit_crosses_nothing(charging, low, urls):
    # Given thresholds, and a debit below one of them that is not committed
    charging.do(
        lambda session, now: thresholds.set_thresholds(
            session, low, [5_000_000], operator=Operator("ann", "agreed"), now=now
        )
    )
    database = Database(urls.app_url, name="victim", pool_size=1)
    with Session(database.engine) as session:
        values = {"key": "lost", "amount_micros": 6_000_000, "currency": "USD"}
        wallet.debit(session, low, now=clock(session), **values)
        session.invalidate()
    database.close()
    # Then no alert is raised; and when the debit is repeated, one alert is raised
    assert eventually(lambda: charging.wallet(low).balance_micros == 10_000_000)
    assert charging.read(Alert, organization_id=low) == []
    for _ in range(2):
        charging.do(lambda session, now: wallet.debit(session, low, now=now, **values))
    assert [row.subject for row in charging.read(Alert, organization_id=low)] == ["5000000"]


def test_top_up_is_not_decided_without_a_provider_that_can_charge(world, low):
    # When a worker whose providers cannot charge takes the job
    assert world.providers.chargeable == frozenset()
    assert world.run_due() == [("decide_top_up", "done")]
    assert decisions(world, low) == []
    (settings,) = world.read(TopUpSettings, organization_id=low)
    assert settings.asks_at is not None
    assert len(jobs_of(world, "decide_top_up")) == 2


def test_top_up_job_is_refused_for_no_organization_and_done_without_terms(world):
    job_id = world.stage("decide_top_up", organization_id="org_none")
    assert world.executor.execute(job_id) == "refused"
    customer = world.customer()
    assert (
        world.do(lambda session, now: top_ups.decide(session, customer.id, now, chargeable=PAYPAL))
        is None
    )
