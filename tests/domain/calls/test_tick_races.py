"""Ticks concurrent with each other and with every other change of a wallet.

Real threads run in each order.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from base.facts import CallReport
from db.engine import clock
from domain.calls import reconcile, status_updates
from domain.calls import tick as ticks
from domain.calls.tick import TickResult
from domain.wallet import freezes as wallet_freezes
from domain.wallet import operations as wallets
from tests.db.support import at_once, one_behind_the_other, with_retries
from tests.domain.calls.support import CENT, CallCustomer
from tests.domain.support import ANN, T0, debit, later
from tests.support.world import make_organization
from workers.meter import Meter


@pytest.fixture
def talking(customer):
    """A call with a hold for one minute, and money for a hundred seconds."""
    customer.call_id = customer.admit_call()
    return customer


def tick_at(customer, now):
    return lambda session: ticks.tick(session, customer.id, now)


def behind(shared, shared_urls, first, customer, now):
    """Return the result of a tick that waits until `first` commits."""
    return one_behind_the_other(shared, shared_urls.owner_url, first, lambda: customer.tick(now))


# A tick that waited for another transaction


def test_tick_behind_a_debit_shares_the_rest(shared, shared_urls, talking):
    def spend(session):
        assert wallets.debit(
            session, talking.id, key="m", amount_micros=30 * CENT, currency="USD", now=T0
        ).ok

    done = behind(shared, shared_urls, spend, talking, later(53))
    # The tick does not request money that is already spent, which would have ended the call
    assert done == TickResult(extended=1)
    assert talking.hold(talking.call_id).reserved_micros == 70 * CENT


def test_a_tick_behind_a_freeze_ends_the_call_for_it(shared, shared_urls, talking):
    def freeze(session):
        wallet_freezes.freeze(session, talking.id, "manual", operator=ANN, now=later(53))

    assert behind(shared, shared_urls, freeze, talking, later(53)) == TickResult(ended=1)
    assert talking.call(talking.call_id).end_cause == "frozen_wallet"


def test_a_tick_behind_a_report_leaves_the_call_alone(shared, shared_urls, talking):
    call = talking.call(talking.call_id)
    report = CallReport(talking.facts(call, "ended", duration_ms=40_000), final=True)

    def settle(session):
        assert status_updates.apply_report(session, report, later(53), later(53))

    assert behind(shared, shared_urls, settle, talking, later(53)) == TickResult()
    assert talking.cents() == (60, 0, 0)
    assert talking.hold(talking.call_id).extensions == 0


def test_report_behind_a_tick_returns_what_it_added(shared, shared_urls, talking):
    call = talking.call(talking.call_id)
    one_behind_the_other(
        shared,
        shared_urls.owner_url,
        tick_at(talking, later(53)),
        lambda: talking.report(call, 40, later(53)),
    )
    assert talking.cents() == (60, 0, 0)
    assert talking.hold(talking.call_id).reserved_micros == 100 * CENT


def test_an_expiry_behind_a_tick_finds_the_hold_put_off(shared, shared_urls, talking):
    # Given an expired hold, of a call that its provider does not know yet
    def expire():
        talking.do(lambda s: reconcile.call_is_absent(s, talking.id, talking.call_id, later(961)))

    talking.pay(10_000)
    one_behind_the_other(shared, shared_urls.owner_url, tick_at(talking, later(961)), expire)
    hold = talking.hold(talking.call_id)
    assert (hold.status, hold.expires_at > later(961)) == ("open", True)
    assert talking.call(talking.call_id).settled_at is None


def test_a_tick_behind_an_expiry_leaves_the_call_alone(shared, shared_urls, talking):
    def expire(session):
        reconcile.call_is_absent(session, talking.id, talking.call_id, later(961))

    talking.pay(10_000)
    assert behind(shared, shared_urls, expire, talking, later(961)) == TickResult()
    assert talking.hold(talking.call_id).status == "expired"


def test_a_tick_behind_a_tick_finds_nothing_due(shared, shared_urls, talking):
    assert (
        behind(shared, shared_urls, tick_at(talking, later(53)), talking, later(53)) == TickResult()
    )
    assert talking.hold(talking.call_id).extensions == 1


# All at once


def test_many_meters_extend_warn_and_end_each_call_once(shared):
    # Given wallets whose calls are all due: some have money, some have none
    now = shared.run(clock)
    customers = []
    for number in range(6):
        customer = CallCustomer(shared, make_organization(shared), cents=120 if number % 2 else 60)
        customer.terms(warn_before_seconds=60)
        customer.call_id = customer.admit_call(now - timedelta(seconds=54))
        customers.append(customer)
    # When eight meters tick them at once, three times
    meters = [Meter(shared) for _ in range(8)]
    for _ in range(3):
        at_once([meter.tick_once for meter in meters])
    # Then each call was ticked once
    for customer in customers:
        has_money = customer.cents()[0] == 120
        call, hold = customer.call(customer.call_id), customer.hold(customer.call_id)
        assert hold.extensions == (1 if has_money else 0)
        assert (call.end_decided_at is None) == has_money
        assert len(customer.jobs("end_call")) == (0 if has_money else 1)
        assert customer.timeline(customer.call_id).count("warned") == (1 if has_money else 0)
        assert len(customer.jobs("warn_call")) == (1 if has_money else 0)


def test_ticks_reports_debits_and_freezes_at_once_lose_no_money(shared, customer):
    # Given eight calls of one wallet
    customer.pay(900)
    calls = [customer.call(customer.admit_call()) for _ in range(8)]
    jobs = [with_retries(lambda now=now: customer.tick(later(now))) for now in (53, 54, 60, 70)]
    jobs += [
        with_retries(lambda call=call: customer.report(call, 30, later(60)))
        for call in calls[:5] * 2
    ]
    jobs += [
        with_retries(lambda n=n: debit(shared, customer.id, CENT, key=f"m{n}")) for n in range(5)
    ]
    # When reports, ticks and debits run at once
    results = at_once(jobs)
    # Then each takes effect once, in any order, and the ledger is consistent
    assert not [one for one in results if isinstance(one, BaseException)]
    balance, held, owed = customer.cents()
    assert (balance, owed) == (1_000 - 5 * 30 - 5, 0)
    assert held == sum(customer.hold(call.id).reserved_micros for call in calls[5:]) / CENT


def test_calls_admitted_during_ticks_and_a_freeze_all_end(customer):
    # Given calls that arrive while an operator freezes the wallet
    customer.pay(900)
    jobs = [with_retries(customer.admit) for _ in range(8)]
    jobs.insert(4, with_retries(lambda: customer.freeze_manually(T0)))
    jobs.append(with_retries(lambda: customer.tick(later(1))))
    results = at_once(jobs)
    assert not [one for one in results if isinstance(one, BaseException)]
    # Then every call admitted before the freeze ends, and no other was admitted
    admit_call = {one.call_id for one in results if getattr(one, "refusal", "") is None}
    assert {one for one in admit_call if one} == set(customer.jobs("end_call"))
    assert {call.id for call in customer.calls() if call.status != "refused"} == admit_call
