"""Refused calls: kept with their reason and without a hold, whatever is reported."""

from __future__ import annotations

import pytest

from base.enums import CallStatus
from domain.calls import queries as call_queries
from domain.calls.admission import withdraw
from domain.calls.billing import shown_status
from domain.calls.rates import remove_rate
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import RATE, CallCustomer, unknown_alerts
from tests.domain.support import ANN, T0, later

REFUSED = "assistant-request-returned-error"


@pytest.fixture
def poor(shared, org):
    """An organization without money."""
    return CallCustomer(shared, org, cents=0)


def vapi_id(customer):
    return f"v-{customer.id}"[:64]


def the_call(customer):
    (call,) = customer.calls()
    return call


@pytest.mark.parametrize("why", ["INSUFFICIENT_FUNDS", "FROZEN_WALLET", "NO_RATE", "NO_ASSISTANT"])
def test_a_refused_call_is_kept_with_its_reason(customer, why):
    if why == "INSUFFICIENT_FUNDS":
        customer.rate(type(RATE)(10_000 * RATE.micros_per_minute, 1))
    elif why == "FROZEN_WALLET":
        customer.freeze()
    elif why == "NO_RATE":
        customer.do(lambda s: remove_rate(s, customer.id, "default", operator=ANN, now=T0))
    else:
        customer.entry_point("phone_number", customer.number_id, assistant_id=None)
    # When a call arrives
    made = customer.admit(external_id=vapi_id(customer))
    # Then it is refused, and its row shows the reason
    assert (made.refusal, made.call_id) == (why, None)
    call = the_call(customer)
    assert (call.status, call.refusal, call.provider_call_id) == ("refused", why, vapi_id(customer))
    assert (call.their_party, call.direction) == ("…0006", "inbound")
    assert (call.settled_by, call.cost_micros, call.tick_at) == ("refused", 0, None)
    assert (customer.hold(call.id), customer.cents()) == (None, (100, 0, 0))
    assert customer.timeline(call.id) == ["refused"]


def test_a_refused_call_stays_refused_when_its_end_is_reported(poor):
    poor.admit(external_id=vapi_id(poor))
    # When Vapi reports twice that the call ended unanswered
    for second in (1, 2):
        fields = {"never_connected": True, "ended_reason": REFUSED, "provider_cost_micros": 3}
        assert poor.report(vapi_id(poor), 0, later(second), **fields)
    # Then the call is not adopted, and no alert is raised about its number
    call = the_call(poor)
    assert (call.status, call.ended_reason, call.cost_micros) == ("refused", REFUSED, 0)
    assert call.provider_cost_micros == 3
    assert poor.timeline(call.id) == ["refused", "ended"]
    assert poor.alerts("door_unasked") == unknown_alerts(poor.database, vapi_id(poor)) == []
    assert poor.jobs("look_at_call") == []


def test_a_refused_call_that_is_admitted_later_is_a_call_like_others(poor):
    first = poor.admit(external_id=vapi_id(poor))
    assert first.refusal == "INSUFFICIENT_FUNDS"
    poor.pay(100)
    call_id = poor.admit_call(later(1), external_id=vapi_id(poor))
    call = the_call(poor)
    assert (call.id, call.status, call.refusal) == (call_id, "admitted", None)
    assert (call.settled_at, call.metered_from) == (None, later(1))
    assert poor.cents() == (100, 60, 0)
    poor.report(call, 20, later(30))
    assert poor.cents() == (80, 0, 0)


def test_a_refused_call_that_talks_is_metered_or_ended(poor):
    poor.admit(external_id=vapi_id(poor))
    # Given a refused caller that the platform connects nevertheless, and no money
    assert poor.report_status(vapi_id(poor), "in_progress", later(1))
    call = the_call(poor)
    assert (call.status, call.end_cause) == ("in_progress", "insufficient_funds")
    assert poor.jobs("end_call") == [call.id]
    assert poor.timeline(call.id)[:3] == ["refused", "end_decided", "adopted"]
    # Then its conversation is charged once
    poor.pay(100)
    poor.report(call, 4, later(5))
    assert (poor.cents(), the_call(poor).refusal) == ((96, 0, 0), "INSUFFICIENT_FUNDS")


def test_a_refused_call_that_talked_is_charged_by_its_report(customer):
    customer.freeze()
    customer.admit(external_id=vapi_id(customer))
    for second in (9, 10):
        assert customer.report(vapi_id(customer), 20, later(second))
    assert customer.cents() == (80, 0, 0)
    assert (the_call(customer).status, the_call(customer).settled_by) == ("ended", "report")


def test_refusal_is_stored_once_however_often_it_is_requested(poor):
    results = at_once([with_retries(lambda: poor.admit(external_id=vapi_id(poor)))] * 8)
    assert {made.refusal for made in results} == {"INSUFFICIENT_FUNDS"}
    assert poor.timeline(the_call(poor).id) == ["refused"]


def test_a_call_that_was_admitted_too_late_is_shown_as_refused(customer):
    call_id = customer.admit_call()
    assert customer.do(lambda session: withdraw(session, customer.id, call_id, later(3)))
    call = the_call(customer)
    assert (shown_status(call), call.refusal) == (CallStatus.REFUSED, "DECIDED_TOO_LATE")
    # But once it talks, the call continues in a new row
    customer.report_status(call, "in_progress", later(5))
    (goes_on,) = [one for one in customer.calls() if one.merged_into is None]
    assert shown_status(goes_on) == CallStatus.IN_PROGRESS


def test_refused_calls_are_listed_among_the_newest_live_ones(poor):
    poor.admit(external_id=vapi_id(poor))
    live = {"organization_id": poor.id}

    def listed(**asked):
        return poor.do(
            lambda s: [one.refusal for one in call_queries.list_calls(s, **live, **asked)]
        )

    assert listed(refused_since=later(-10)) == ["INSUFFICIENT_FUNDS"]
    assert listed(refused_since=later(10)) == listed() == []
    assert listed(live=False, status=CallStatus.REFUSED) == ["INSUFFICIENT_FUNDS"]
    assert listed(live=False, status=CallStatus.ENDED) == []


def test_refused_call_does_not_count_among_the_costs(poor):
    poor.admit(external_id=vapi_id(poor))
    day = T0.date()
    costs = poor.do(
        lambda s: call_queries.costs_by_day(s, organization_id=poor.id, first_day=day, last_day=day)
    )
    assert costs == []
