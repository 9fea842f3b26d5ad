"""The meter ticks every wallet with a due call, even if another wallet is locked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from db.models.calls import Call
from tests.workers.actors.phone import Phone
from tests.workers.scenes import LIMIT_SECONDS, eventually
from workers.meter import Meter


@pytest.fixture
def meter(world):
    made = Meter(world.database)
    yield made
    made.stop(LIMIT_SECONDS)


def due(phone: Phone) -> bool:
    """Return whether the call waits for the tick that its first refresh made due."""
    (call,) = phone.world.read(Call, organization_id=phone.id)
    return call.tick_at <= call.seen_at


def test_one_pass_ticks_every_due_wallet(world, meter):
    phones = [Phone(world) for _ in range(2)]
    for phone in phones:
        phone.call()
    assert all(map(due, phones))
    assert meter.tick_once() == 2
    assert not any(map(due, phones))


def test_locked_wallet_is_left_to_the_next_pass(world, meter):
    # Given two wallets with a due call, one of them locked by another transaction
    held, free = Phone(world), Phone(world)
    held.call()
    free.call()
    locked, release = threading.Event(), threading.Event()

    def hold_it(session, now):
        session.execute(text("SELECT wallet_lock(:id)"), {"id": held.id})
        locked.set()
        release.wait(LIMIT_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(world.do, hold_it)
        assert locked.wait(LIMIT_SECONDS)
        # When the meter runs, Then it ticks the other wallet nevertheless
        assert meter.tick_once() == 2
        assert (due(held), due(free)) == (True, False)
        release.set()
        holding.result()
    meter.tick_once()
    assert not due(held)


def test_meter_ticks_until_it_is_stopped(world, meter):
    phone = Phone(world)
    phone.call()
    meter.start()
    assert eventually(lambda: not due(phone))
    meter.stop(LIMIT_SECONDS)
    assert "meter" not in [thread.name for thread in threading.enumerate()]
