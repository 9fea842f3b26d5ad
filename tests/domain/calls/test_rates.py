"""The cost of a call: increments, minimum, one rounding, and which rate is used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.enums import CallDirection
from db.models import OperatorAction
from domain.calls.rates import (
    INCREMENTS_SECONDS,
    RATE_MICROS_MAX,
    InvalidRate,
    Rate,
    find_rate,
    remove_rate,
    set_rate,
)
from domain.calls.setup_queries import list_rates
from domain.wallet.ledger import WalletNotFound
from tests.domain.support import ANN, T0, later

INBOUND, OUTBOUND, WEB = CallDirection.INBOUND, CallDirection.OUTBOUND, CallDirection.WEB
rates = st.builds(
    Rate,
    st.integers(1, RATE_MICROS_MAX),
    st.sampled_from(INCREMENTS_SECONDS),
    st.integers(0, RATE_MICROS_MAX),
)


@pytest.mark.parametrize(
    ("rate", "duration_ms", "cost_micros"),
    [
        # Rounded up to a whole second
        (Rate(600_000, 1), 1, 10_000),
        (Rate(600_000, 1), 1_000, 10_000),
        (Rate(600_000, 1), 1_001, 20_000),
        # Rounded up to 6, 30 or 60 seconds
        (Rate(600_000, 6), 1, 60_000),
        (Rate(600_000, 6), 6_000, 60_000),
        (Rate(600_000, 6), 6_001, 120_000),
        (Rate(600_000, 30), 30_001, 600_000),
        (Rate(600_000, 60), 60_000, 600_000),
        (Rate(600_000, 60), 60_001, 1_200_000),
        # Rounded up to a whole micro once, at the end: three seconds at a third of a micro cost one
        (Rate(20, 1), 1_000, 1),
        (Rate(20, 1), 3_000, 1),
        (Rate(20, 1), 4_000, 2),
        (Rate(1, 1), 1, 1),
        (Rate(1, 1), 60_000, 1),
        (Rate(1, 1), 60_001, 2),
        # Never less than the minimum, but nothing for a call that never talked
        (Rate(600_000, 1, 50_000), 1, 50_000),
        (Rate(600_000, 1, 50_000), 5_000, 50_000),
        (Rate(600_000, 1, 50_000), 5_001, 60_000),
        (Rate(600_000, 1, 50_000), 0, 0),
        (Rate(600_000, 1, 50_000), -1, 0),
        # The most expensive call of the greatest length is still a valid amount
        (Rate(RATE_MICROS_MAX, 60), 43_200_000, 720 * RATE_MICROS_MAX),
    ],
)
def test_a_talk_costs_its_whole_increments_rounded_up_once(rate, duration_ms, cost_micros):
    assert rate.cost_micros(duration_ms) == cost_micros


@pytest.mark.parametrize(
    ("rate", "amount", "seconds"),
    [
        (Rate(600_000, 1), 9_999, 0),
        (Rate(600_000, 1), 10_000, 1),
        (Rate(600_000, 60), 599_999, 0),
        (Rate(600_000, 60), 600_000, 60),
        (Rate(600_000, 1, 50_000), 49_999, 0),
        (Rate(600_000, 1, 50_000), 50_000, 5),
        (Rate(20, 1), 1, 3),
        (Rate(600_000, 1), 0, 0),
        (Rate(600_000, 1), -1, 0),
        (Rate(1, 1), 10**15, 60 * 10**15),
    ],
)
def test_amount_pays_for_so_many_seconds_at_its_exact_limit(rate, amount, seconds):
    assert rate.seconds_for(amount) == seconds


@given(rate=rates, amount=st.integers(0, 10**18))
def test_amount_pays_for_the_longest_talk_and_not_one_increment_more(rate, amount):
    seconds = rate.seconds_for(amount)
    assert seconds % rate.increment_seconds == 0
    assert rate.cost_micros(1000 * seconds) <= amount
    assert rate.cost_micros(1000 * seconds + 1) > amount


@given(rate=rates, first=st.integers(0, 43_260_000), more=st.integers(0, 43_260_000))
def test_a_longer_talk_never_costs_less(rate, first, more):
    assert 0 <= rate.cost_micros(first) <= rate.cost_micros(first + more)


@given(rate=rates, seconds=st.integers(0, 86_400))
def test_seconds_are_counted_up_to_whole_increments(rate, seconds):
    counted = rate.up_to_increment(seconds)
    assert seconds <= counted < seconds + rate.increment_seconds
    assert counted % rate.increment_seconds == 0


# Routes


def set_route(customer, route, micros):
    customer.rate(Rate(micros, 1), route)


def found(customer, direction, number):
    made = customer.do(lambda session: find_rate(session, customer.id, direction, number))
    return None if made is None else made.rate.micros_per_minute


def test_longest_matching_route_is_used(customer):
    for micros, route in enumerate(
        ("default", "inbound", "outbound", "outbound:+4", "outbound:+44", "outbound:+4420", "web"),
        start=1,
    ):
        set_route(customer, route, micros)
    assert found(customer, INBOUND, "+442012345678") == 2
    assert found(customer, INBOUND, None) == 2
    assert found(customer, OUTBOUND, "+15005550006") == 3
    assert found(customer, OUTBOUND, "+4915005550006") == 4
    assert found(customer, OUTBOUND, "+447700900123") == 5
    assert found(customer, OUTBOUND, "+442012345678") == 6
    # An unknown number matches no prefix
    assert found(customer, OUTBOUND, None) == 3
    # A direction takes precedence over the default, although its name is shorter
    assert found(customer, WEB, None) == 7


def test_default_rate_is_used_where_no_other_fits_and_may_be_removed(customer):
    set_route(customer, "outbound:+44", 9)
    assert found(customer, WEB, None) == 600_000
    customer.do(lambda s: remove_rate(s, customer.id, "default", operator=ANN, now=T0))
    assert found(customer, WEB, None) is None
    assert found(customer, OUTBOUND, "+15") is None
    assert found(customer, OUTBOUND, "+44") == 9


def test_a_rate_is_set_anew_and_listed_and_taken_away_once(customer):
    set_route(customer, "web", 5)
    set_route(customer, "web", 6)
    listed = customer.do(lambda session: list_rates(session, customer.id))
    assert [(one.route, one.per_minute_micros) for one in listed] == [
        ("default", 600_000),
        ("web", 6),
    ]

    def remove(session):
        return remove_rate(session, customer.id, "web", operator=ANN, now=later(1))

    assert (customer.do(remove), customer.do(remove)) == (True, False)
    acts = customer.do(
        lambda s: s.query(OperatorAction).filter_by(subject=f"{customer.id} web").all()
    )
    assert sorted(act.act for act in acts) == ["call_rate.remove"] + ["call_rate.set"] * 2


@pytest.mark.parametrize(
    ("rate", "route"),
    [
        (Rate(600_000, 1), ""),
        (Rate(600_000, 1), "sideways"),
        (Rate(600_000, 1), "inbound:44"),
        (Rate(600_000, 1), "inbound:+"),
        (Rate(600_000, 1), "inbound:+٤٤"),
        (Rate(600_000, 1), "inbound:+1234567890123456"),
        (Rate(600_000, 1), "default:+44"),
        (Rate(600_000, 1), "default\n"),
        (Rate(600_000, 0), "default"),
        (Rate(600_000, 2), "default"),
        (Rate(0, 1), "default"),
        (Rate(-1, 1), "default"),
        (Rate(RATE_MICROS_MAX + 1, 1), "default"),
        (Rate(600_000, 1, -1), "default"),
        (Rate(600_000, 1, RATE_MICROS_MAX + 1), "default"),
    ],
)
def test_a_rate_out_of_bounds_is_refused_and_nothing_changes(customer, rate, route):
    with pytest.raises(InvalidRate):
        customer.rate(rate, route)
    listed = customer.do(lambda session: list_rates(session, customer.id))
    assert [(one.route, one.per_minute_micros) for one in listed] == [("default", 600_000)]


def test_the_dearest_rate_and_the_highest_minimum_are_taken(customer):
    customer.rate(Rate(RATE_MICROS_MAX, 60, RATE_MICROS_MAX), "inbound:+123456789012345")
    assert found(customer, INBOUND, "+123456789012345") == RATE_MICROS_MAX


def test_rate_needs_a_wallet(shared):
    with pytest.raises(WalletNotFound):
        shared.run(lambda s: set_rate(s, "org_unknown", Rate(600_000, 1), operator=ANN, now=T0))
