"""Reservations of outgoing calls by the company's backend: one hold per call."""

from __future__ import annotations

import pytest

from db.models import Subscription
from domain.calls.rates import Rate, remove_rate
from domain.calls.reservations import reserve_for_call
from tests.db.support import at_once, one_behind_the_other, with_retries
from tests.domain.calls.support import CENT, CallCustomer
from tests.domain.support import ANN, T0, later, refresh_subscription
from tests.domain.wallet.hold_support import everything, expire
from tests.domain.wallet.support import bare_organization
from tests.support.world import make_organization


def code(reserved):
    return "replay" if reserved.outcome.replayed else reserved.outcome.outcome


def vapi_id(customer, mark="v"):
    return f"{mark}-{customer.id}"[:64]


def test_reservation_holds_the_estimated_cost_and_is_not_metered_yet(customer):
    reserved = customer.reserve(seconds=30, number="+442012345678", appointment_id="app-1")
    assert (code(reserved), customer.cents()) == ("OK", (100, 30, 0))
    call = customer.call()
    assert (call.status, call.direction, call.their_party) == ("admitted", "outbound", "…5678")
    assert (call.appointment_id, call.metered_from) == ("app-1", None)
    assert call.max_duration_seconds is None
    assert call.tick_at == later(30)
    assert customer.hold().expires_at == later(30 + 900)


def test_the_rate_is_that_of_the_number_that_is_called(customer):
    customer.rate(Rate(90 * CENT, 60), "outbound:+44")
    customer.reserve(seconds=10, number="+442012345678")
    assert customer.call().micros_per_minute == 90 * CENT
    assert customer.cents() == (100, 90, 0)


@pytest.mark.parametrize(
    ("seconds", "answer"),
    [
        (0, "INVALID_DURATION"),
        (-1, "INVALID_DURATION"),
        (43_201, "INVALID_DURATION"),
        (1, "OK"),
        (100, "OK"),
        (101, "INSUFFICIENT_FUNDS"),
        (43_200, "INSUFFICIENT_FUNDS"),
    ],
)
def test_the_exact_limits_of_an_estimate(customer, seconds, answer):
    before = everything(customer.database, customer.id)
    reserved = customer.reserve(seconds=seconds)
    assert code(reserved) == answer
    if answer != "OK":
        assert (reserved.call, customer.calls()) == (None, [])
        assert everything(customer.database, customer.id) == before


def test_reserving_is_refused_while_the_wallet_is_frozen(customer):
    customer.freeze()
    before = everything(customer.database, customer.id)
    assert code(customer.reserve()) == "FROZEN_WALLET"
    # Also without a rate: the freeze is reported first
    customer.do(lambda s: remove_rate(s, customer.id, "default", operator=ANN, now=T0))
    assert code(customer.reserve()) == "FROZEN_WALLET"
    assert (customer.calls(), everything(customer.database, customer.id)) == ([], before)


def test_reserving_is_refused_while_the_subscription_is_inactive(shared, org):
    # Given an organization with money and a rate, whose subscription is suspended
    customer = CallCustomer(shared, org)
    (one,) = customer.do(lambda s: s.query(Subscription).filter_by(organization_id=org).all())
    refresh_subscription(shared, one.external_id, org, "suspended")
    before = everything(shared, org)
    assert code(customer.reserve()) == "SUBSCRIPTION_INACTIVE"
    assert (customer.calls(), everything(shared, org)) == ([], before)


def test_reserving_is_refused_without_a_rate(customer):
    customer.do(lambda s: remove_rate(s, customer.id, "default", operator=ANN, now=T0))
    before = everything(customer.database, customer.id)
    assert code(customer.reserve()) == "NO_RATE"
    assert (customer.calls(), everything(customer.database, customer.id)) == ([], before)


def test_reserving_is_refused_without_a_wallet(customer):
    customer.id = bare_organization(customer.database)
    assert code(customer.reserve()) == "WALLET_NOT_FOUND"
    assert (customer.calls(), customer.hold()) == ([], None)


@pytest.mark.parametrize("call_id", ["", "x" * 65])
def test_an_id_that_cannot_be_kept_is_refused(customer, call_id):
    assert code(customer.reserve(call_id)) == "INVALID_CALL"
    assert customer.calls() == []


# Replays


def test_reservation_is_replayed_with_any_parameters_while_hold_is_open(customer):
    customer.reserve(seconds=30, provider=vapi_id(customer))
    assert code(customer.reserve(seconds=90, provider=vapi_id(customer))) == "replay"
    customer.freeze()
    assert code(customer.reserve(seconds=1, provider=None)) == "replay"
    assert customer.cents() == (100, 30, 0)
    assert len(customer.calls()) == 1


@pytest.mark.parametrize("ending", ["report", "no cost", "expired"])
def test_reserving_a_call_that_is_over_is_refused_as_settled(customer, ending):
    customer.reserve(seconds=30)
    if ending == "expired":
        expire(customer.database, customer.id, now=later(930))
    else:
        customer.report(customer.call(), 5 if ending == "report" else 0, later(20))
    again = customer.reserve(seconds=30, provider=customer.call().provider_call_id, now=later(940))
    assert code(again) == "CALL_SETTLED"
    assert customer.cents()[1] == 0


def test_free_call_without_a_hold_is_not_reserved_for_afterwards(customer):
    customer.report(vapi_id(customer), 0)
    (call,) = customer.calls()
    assert call.settled_at is not None and customer.hold(call.id) is None
    assert code(customer.reserve(call.id, provider=None)) == "CALL_SETTLED"
    assert customer.hold(call.id) is None


def test_providers_id_may_arrive_with_a_later_reservation(customer):
    customer.reserve(provider=None)
    assert customer.call().provider_call_id is None
    assert code(customer.reserve(provider=vapi_id(customer))) == "replay"
    assert customer.call().provider_call_id == vapi_id(customer)


def test_a_call_and_a_providers_call_are_paired_once(customer, shared):
    customer.reserve("c1", provider=vapi_id(customer))
    # Our call with another call of Vapi, and Vapi's call with another call of ours
    assert code(customer.reserve("c1", provider=vapi_id(customer, "w"))) == "IDEMPOTENCY_CONFLICT"
    assert code(customer.reserve("c2", provider=vapi_id(customer))) == "IDEMPOTENCY_CONFLICT"
    # Also a call that its own messages have paired
    customer.reserve("c3", provider=None)
    customer.report_status(vapi_id(customer, "x"), "queued", **customer.metadata("c3"))
    assert code(customer.reserve("c3", provider=vapi_id(customer, "y"))) == "IDEMPOTENCY_CONFLICT"
    assert code(customer.reserve("c3", provider=vapi_id(customer, "x"))) == "replay"
    # And in another organization
    other = CallCustomer(shared, make_organization(shared))
    assert code(other.reserve("c1", provider=vapi_id(customer))) == "IDEMPOTENCY_CONFLICT"
    assert (other.calls(), other.cents()[1]) == ([], 0)


def test_two_organizations_that_reserve_one_call_at_once_conflict(customer, shared, shared_urls):
    # Given one reservation that is not committed yet, so that the other cannot see it
    other = CallCustomer(shared, make_organization(shared))
    wanted = vapi_id(customer)

    def first(session):
        assert reserve_for_call(
            session,
            customer.id,
            call_id="c1",
            provider_call_id=wanted,
            estimated_seconds=30,
            now=T0,
        ).outcome.ok

    answers = []

    def second():
        answers.append(code(other.reserve("c1", provider=wanted)))

    # When the other organization reserves, its insert waits, is refused and is run again
    one_behind_the_other(shared, shared_urls.owner_url, first, second)
    # Then it is a conflict, and nothing of it is kept
    assert answers == ["IDEMPOTENCY_CONFLICT"]
    assert (other.calls(), other.cents()) == ([], (100, 0, 0))
    assert customer.cents() == (100, 30, 0)


def test_the_same_call_many_times_at_once_is_one_hold(customer):
    wanted = vapi_id(customer)
    results = at_once([with_retries(lambda: customer.reserve("c1", provider=wanted))] * 12)
    assert sorted(code(one) for one in results) == ["OK"] + ["replay"] * 11
    assert customer.cents() == (100, 30, 0)
