"""Refused calls: kept with their reason and without a hold, whatever is reported."""

from __future__ import annotations

import pytest

from base.enums import CallStatus
from domain.calls import queries as call_queries
from domain.calls.admission import withdraw
from domain.calls.billing import shown_status
from domain.calls.rates import remove_rate
from tests.db.support import at_once, patiently
from tests.domain.calls.support import RATE, Line, unknown_alerts
from tests.domain.support import ANN, T0, later

REFUSED = "assistant-request-returned-error"


@pytest.fixture
def poor(shared, org):
    """An organization without money."""
    return Line(shared, org, cents=0)


def name(line):
    return f"v-{line.id}"[:64]


def the_call(line):
    (call,) = line.calls()
    return call


@pytest.mark.parametrize("why", ["INSUFFICIENT_FUNDS", "FROZEN_WALLET", "NO_RATE", "NO_ASSISTANT"])
def test_a_refused_call_is_kept_with_its_reason(line, why):
    if why == "INSUFFICIENT_FUNDS":
        line.rate(type(RATE)(10_000 * RATE.micros_per_minute, 1))
    elif why == "FROZEN_WALLET":
        line.freeze()
    elif why == "NO_RATE":
        line.do(lambda s: remove_rate(s, line.id, "default", operator=ANN, now=T0))
    else:
        line.entry_point("phone_number", line.number_id, assistant_id=None)
    # When a call arrives
    made = line.admit(external_id=name(line))
    # Then it is refused, and its row shows the reason
    assert (made.refusal, made.call_id) == (why, None)
    call = the_call(line)
    assert (call.status, call.refusal, call.provider_call_id) == ("refused", why, name(line))
    assert (call.their_party, call.direction) == ("…0006", "inbound")
    assert (call.settled_by, call.cost_micros, call.tick_at) == ("refused", 0, None)
    assert (line.hold(call.id), line.cents()) == (None, (100, 0, 0))
    assert line.timeline(call.id) == ["refused"]


def test_a_refused_call_stays_refused_when_its_end_is_reported(poor):
    poor.admit(external_id=name(poor))
    # When Vapi reports twice that the call ended unanswered
    for second in (1, 2):
        fields = {"never_connected": True, "ended_reason": REFUSED, "provider_cost_micros": 3}
        assert poor.report(name(poor), 0, later(second), **fields)
    # Then the call is not adopted, and no alert is raised about its number
    call = the_call(poor)
    assert (call.status, call.ended_reason, call.cost_micros) == ("refused", REFUSED, 0)
    assert call.provider_cost_micros == 3
    assert poor.timeline(call.id) == ["refused", "ended"]
    assert poor.alerts("door_unasked") == unknown_alerts(poor.database, name(poor)) == []
    assert poor.jobs("look_at_call") == []


def test_a_refused_call_that_is_admitted_later_is_a_call_like_others(poor):
    first = poor.admit(external_id=name(poor))
    assert first.refusal == "INSUFFICIENT_FUNDS"
    poor.pay(100)
    call_id = poor.let_in(later(1), external_id=name(poor))
    call = the_call(poor)
    assert (call.id, call.status, call.refusal) == (call_id, "admitted", None)
    assert (call.settled_at, call.metered_from) == (None, later(1))
    assert poor.cents() == (100, 60, 0)
    poor.report(call, 20, later(30))
    assert poor.cents() == (80, 0, 0)


def test_a_refused_call_that_talks_is_metered_or_ended(poor):
    poor.admit(external_id=name(poor))
    # Given a refused caller that the platform connects nevertheless, and no money
    assert poor.hear(name(poor), "in_progress", later(1))
    call = the_call(poor)
    assert (call.status, call.end_cause) == ("in_progress", "insufficient_funds")
    assert poor.jobs("end_call") == [call.id]
    assert poor.timeline(call.id)[:3] == ["refused", "end_decided", "adopted"]
    # Then its conversation is charged once
    poor.pay(100)
    poor.report(call, 4, later(5))
    assert (poor.cents(), the_call(poor).refusal) == ((96, 0, 0), "INSUFFICIENT_FUNDS")


def test_a_refused_call_that_talked_is_charged_by_its_report(line):
    line.freeze()
    line.admit(external_id=name(line))
    for second in (9, 10):
        assert line.report(name(line), 20, later(second))
    assert line.cents() == (80, 0, 0)
    assert (the_call(line).status, the_call(line).settled_by) == ("ended", "report")


def test_refusal_is_stored_once_however_often_it_is_requested(poor):
    results = at_once([patiently(lambda: poor.admit(external_id=name(poor)))] * 8)
    assert {made.refusal for made in results} == {"INSUFFICIENT_FUNDS"}
    assert poor.timeline(the_call(poor).id) == ["refused"]


def test_a_call_that_was_admitted_too_late_is_shown_as_refused(line):
    call_id = line.let_in()
    assert line.do(lambda session: withdraw(session, line.id, call_id, later(3)))
    call = the_call(line)
    assert (shown_status(call), call.refusal) == (CallStatus.REFUSED, "DECIDED_TOO_LATE")
    # But once it talks, the call continues in a new row
    line.hear(call, "in_progress", later(5))
    (goes_on,) = [one for one in line.calls() if one.merged_into is None]
    assert shown_status(goes_on) == CallStatus.IN_PROGRESS


def test_refused_calls_are_listed_among_the_newest_live_ones(poor):
    poor.admit(external_id=name(poor))
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
    poor.admit(external_id=name(poor))
    day = T0.date()
    costs = poor.do(
        lambda s: call_queries.costs_by_day(s, organization_id=poor.id, first_day=day, last_day=day)
    )
    assert costs == []
