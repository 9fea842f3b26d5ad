"""A lower debt limit: the next tick takes back unused credit of live calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.calls.metering import Metered, share_out
from domain.calls.rates import Rate
from domain.calls.settings import Terms
from domain.calls.tick import TickResult, due_organizations
from tests.domain.calls.support import CENT, RATE
from tests.domain.support import later
from tests.domain.wallet.hold_support import set_limit


def lent(customer, cents=100):
    """Let a call use its dollar and borrow a step of credit; return its ID."""
    customer.debt(cents)
    call_id = "c1"
    customer.reserve(seconds=100)
    customer.report_status(customer.call(), "in_progress")
    customer.tick(later(93))
    assert (customer.hold(call_id).reserved_micros, customer.call(call_id).debt_micros) == (
        100 * CENT,
        60 * CENT,
    )
    return call_id


def test_lowering_a_debt_limit_ends_a_call_that_lives_on_lent_credit(customer):
    # Given a call with a hold of a dollar and 0.60 of credit, of which it has used 0.04
    call_id = lent(customer)
    # When the limit is set to zero
    assert set_limit(customer.database, customer.id, 0, now=later(104)).ok
    # Then its tick is due at once, takes back 0.56 and ends it
    assert customer.id in customer.do(lambda s: due_organizations(s, later(104), 1_000))
    assert customer.tick(later(104)) == TickResult(ended=1)
    call = customer.call(call_id)
    assert (call.debt_micros, call.end_cause) == (4 * CENT, "insufficient_funds")
    assert customer.timeline(call_id)[-2:] == ["debt_returned", "end_decided"]
    assert customer.jobs("end_call") == [call_id]


def test_lowering_a_debt_limit_takes_back_no_more_than_it_must(customer):
    call_id = lent(customer)
    assert set_limit(customer.database, customer.id, 45 * CENT, now=later(104)).ok
    assert customer.tick(later(104)) == TickResult()
    call = customer.call(call_id)
    assert (call.debt_micros, call.end_cause) == (45 * CENT, None)
    # And it ends in time for what is left: after 145 seconds less the margin and the lead
    assert call.tick_at == later(138)


def test_new_money_is_used_before_lent_credit_ends(customer):
    call_id = lent(customer)
    customer.pay(200)
    assert set_limit(customer.database, customer.id, 0, now=later(104)).ok
    assert customer.tick(later(104)) == TickResult(extended=1)
    call = customer.call(call_id)
    assert (call.debt_micros, call.end_cause) == (4 * CENT, None)


def test_a_higher_debt_limit_leaves_lent_credit_as_it_is(customer):
    call_id = lent(customer)
    assert set_limit(customer.database, customer.id, 300 * CENT, now=later(104)).ok
    assert customer.tick(later(104)) == TickResult()
    assert customer.call(call_id).debt_micros == 60 * CENT


@given(
    limit=st.integers(0, 300),
    lives=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 100)), min_size=1, max_size=5),
    increment=st.sampled_from([1, 6, 60]),
)
def test_taking_back_lent_credit_leaves_what_was_used(limit, lives, increment):
    rate = Rate(RATE.micros_per_minute, increment)
    calls = [
        Metered(str(place), rate, float(elapsed), 60 * CENT, debt * CENT, warned=True)
        for place, (elapsed, debt) in enumerate(lives)
    ]
    before = {call.call_id: call.debt_micros for call in calls}
    room = (limit - sum(debt for _, debt in lives)) * CENT
    share_out(calls, Terms(), available_micros=0, debt_room_micros=room, overlent_micros=-room)
    for call in calls:
        talked = rate.cost_micros(round(1000 * call.elapsed_seconds)) - 60 * CENT
        assert call.debt_micros >= min(before[call.call_id], max(0, talked))
        assert call.debt_micros == (
            before[call.call_id] + call.borrow_micros - call.returned_micros
        )
    if room < 0:
        # Either the limit holds, or only the credit that was talked remains.
        over = sum(call.debt_micros for call in calls) > limit * CENT
        assert not over or all(
            call.debt_micros
            <= max(0, rate.cost_micros(round(1000 * call.elapsed_seconds)) - 60 * CENT)
            for call in calls
        )
