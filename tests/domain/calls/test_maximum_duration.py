"""A call that its platform lets run past its maximum is ended and holds no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.facts import CALL_DURATION_MS_MAX
from domain.calls.metering import LEAD_SECONDS, OVERDUE_SECONDS, Metered, share_out
from domain.calls.rates import Rate
from domain.calls.settings import Terms
from domain.calls.tick import TickResult, due_organizations
from tests.domain.calls.support import CENT, RATE, CallCustomer
from tests.domain.support import T0, later


@pytest.fixture
def rich(shared, org):
    """An organization with much money, whose calls last fifteen seconds at most."""
    customer = CallCustomer(shared, org, cents=100_000)
    customer.terms(warn_before_seconds=0, max_duration_seconds=15)
    return customer


def run_ticks(customer, call_id, until_seconds):
    """Tick whenever the call is due; return the second in which its end was decided."""
    now = T0
    while now <= later(until_seconds):
        customer.tick(now)
        call = customer.call(call_id)
        if call.end_decided_at is not None:
            return (call.end_decided_at - T0).total_seconds()
        now = max(call.tick_at, now)
    return None


def test_call_past_its_maximum_duration_is_ended_and_alerted(rich):
    # Given a call of at most fifteen seconds, on a platform that ignores the maximum
    call_id = rich.admit_call()
    assert rich.call(call_id).max_duration_seconds == 15
    rich.report_status(rich.call(call_id), "in_progress", T0)
    # Then it lives until five seconds after its maximum, and is ended then
    assert run_ticks(rich, call_id, 72) == 15 + OVERDUE_SECONDS
    assert rich.call(call_id).end_cause == "max_duration"
    assert rich.jobs("end_call") == [call_id]
    (alert,) = rich.alerts("call_past_maximum")
    assert (alert.subject, alert.details["max_duration_seconds"]) == (call_id, 15)
    # And its hold is limited to what the call may still cost until then
    assert rich.hold(call_id).reserved_micros <= (15 + 5 + 5 + 2) * CENT


def test_a_call_within_its_maximum_duration_is_left_alone(rich):
    call_id = rich.admit_call()
    rich.report_status(rich.call(call_id), "in_progress", T0)
    assert rich.tick(later(19.9)) in (TickResult(), TickResult(extended=1))
    assert rich.call(call_id).end_decided_at is None
    assert rich.call(call_id).tick_at == later(20)
    rich.report(rich.call(call_id), 15, later(20))
    assert rich.alerts("call_past_maximum") == []


def test_a_call_with_funds_for_its_maximum_alone_ends_before_them(customer):
    # Given money for a hundred seconds, which is also the call's maximum
    call_id = customer.admit_call()
    assert customer.call(call_id).max_duration_seconds == 100
    customer.report_status(customer.call(call_id), "in_progress", T0)
    assert run_ticks(customer, call_id, 200) == 93
    assert customer.call(call_id).end_cause == "insufficient_funds"


def test_a_call_of_five_days_holds_no_more_than_it_may_cost(shared, org):
    # Given a call without a maximum duration, reported as talking for five days
    customer = CallCustomer(shared, org, cents=1_000_000)
    customer.report_status("v-" + customer.id[:40], "in_progress", T0)
    (call,) = customer.calls()
    assert call.max_duration_seconds is None
    customer.tick(later(5 * 86_400))
    # Then it is ended, and its hold is limited to the cost of the longest call
    (call,) = customer.calls()
    assert call.end_cause == "max_duration"
    assert customer.hold(call.id).reserved_micros <= CALL_DURATION_MS_MAX // 1000 * CENT
    assert len(customer.alerts("call_past_maximum")) == 1


def test_call_with_a_late_tick_holds_no_more_than_it_may_cost(rich):
    call_id = rich.admit_call()
    rich.report_status(rich.call(call_id), "in_progress", T0)
    rich.tick(later(72))
    assert rich.hold(call_id).reserved_micros <= 27 * CENT
    assert rich.call(call_id).end_cause == "max_duration"
    assert not rich.do(lambda s: rich.id in due_organizations(s, later(10_000), 1_000))


@given(
    limit=st.integers(10, 43_200),
    elapsed=st.floats(0, 500_000),
    held=st.integers(0, 100_000),
    margin=st.integers(1, 60),
    step=st.integers(1, 3_600),
    increment=st.sampled_from([1, 6, 30, 60]),
    pot=st.integers(0, 10**12),
    room=st.integers(0, 10**12),
)
def test_hold_does_not_grow_past_what_may_be_charged(
    limit, elapsed, held, margin, step, increment, pot, room
):
    rate = Rate(RATE.micros_per_minute, increment)
    call = Metered("c", rate, elapsed, held * CENT, 0, warned=True, limit_seconds=limit)
    terms = Terms(margin_seconds=margin, step_seconds=step, warn_before_seconds=0)
    share_out([call], terms, available_micros=pot, debt_room_micros=room)
    longest = min(limit + OVERDUE_SECONDS + margin + LEAD_SECONDS, CALL_DURATION_MS_MAX / 1000)
    covered = rate.cost_micros(round(1000 * longest))
    assert call.hold_micros + call.debt_micros <= max(held * CENT, covered)
    if elapsed >= limit + OVERDUE_SECONDS:
        assert call.end and call.past_limit
    elif not call.end:
        assert elapsed + call.next_seconds <= limit + OVERDUE_SECONDS
