"""Reports that deny a conversation reported before, and later reports."""

from __future__ import annotations

import pytest

from tests.domain.calls.support import CENT
from tests.domain.support import forget_jobs, later

#: Two denials: the call was not answered, or its start equals its end.
NEVER = {"never_connected": True, "ended_reason": "customer-did-not-answer"}
AT_ONCE = {"duration_ms": 0, "started_at": later(10), "ended_at": later(10)}


@pytest.fixture
def talked(customer):
    """A call that talked from 10 to 33 seconds after T0, as its messages report."""
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "in_progress", later(10))
    customer.report_status(customer.call(), "ended", later(33))
    forget_jobs(customer.database, customer.id)
    return customer


def deny(customer, how, now=40):
    customer.report_status(customer.call(), "ended", later(now), final=True, **how)


@pytest.mark.parametrize("how", [NEVER, AT_ONCE], ids=["never", "at once"])
def test_report_that_denies_a_conversation_is_not_believed(talked, how):
    # When the report contradicts the earlier messages
    deny(talked, how)
    # Then nothing is settled, and a refresh is staged
    assert (talked.call().settled_at, talked.hold().status) == (None, "open")
    assert talked.jobs("look_at_call") == ["c1"]
    assert talked.call().oddities == ["talk_denied"]
    # And the refresh decides
    talked.refresh(talked.call(), "ended", later(50), duration_ms=20_000)
    assert (talked.cents(), talked.call().settled_by) == ((80, 0, 0), "look")
    assert talked.call().oddities == ["talk_denied"]


@pytest.mark.parametrize("how", [NEVER, AT_ONCE], ids=["never", "at once"])
def test_meter_decides_when_the_refresh_denies_the_conversation_too(talked, how):
    deny(talked, how)
    talked.refresh(talked.call(), "ended", later(50), **how)
    call = talked.call()
    assert (call.duration_ms, call.cost_micros) == (23_000, 23 * CENT)
    assert call.oddities == ["metered_by_us", "talk_denied"]
    assert talked.cents() == (77, 0, 0)


def test_the_first_report_ends_and_denies_a_call_in_progress(customer):
    # Given a call in progress; the denial is the first report of its end
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "in_progress", later(10))
    deny(customer, NEVER, now=22)
    customer.refresh(customer.call(), "ended", later(50), **NEVER)
    assert (customer.call().cost_micros, customer.cents()) == (12 * CENT, (88, 0, 0))


def test_admitted_call_is_free_when_it_was_not_answered(customer):
    # Given a call that is metered from its admission, without any report that it talks
    call_id = customer.admit_call()
    customer.report_status(customer.call(call_id), "ended", later(20), final=True, **NEVER)
    assert (customer.cents(), customer.call(call_id).oddities) == ((100, 0, 0), [])


def test_an_inbound_call_that_talked_costs_from_its_start(customer):
    call_id = customer.admit_call()
    customer.report_status(customer.call(call_id), "in_progress", later(5), talking_ms=1_000)
    customer.report_status(customer.call(call_id), "ended", later(20), final=True, **NEVER)
    customer.refresh(customer.call(call_id), "ended", later(30), **NEVER)
    assert customer.call(call_id).cost_micros == 16 * CENT


def test_duration_counts_whatever_the_reason_is(talked):
    talked.report(talked.call(), 12.2, later(40), never_connected=True)
    assert (talked.cents(), talked.call().cost_micros) == ((87, 0, 0), 13 * CENT)


def test_in_progress_after_the_end_counts_against_a_denial(customer):
    # Given messages out of order: the end, then in-progress, then the report that denies it
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "ended", later(33))
    customer.report_status(customer.call(), "in_progress", later(34))
    forget_jobs(customer.database, customer.id)
    deny(customer, NEVER)
    assert customer.jobs("look_at_call") == ["c1"]
    # Then an operator decides when the refresh denies it too, because our meter never began
    customer.refresh(customer.call(), "ended", later(50), **NEVER)
    assert (customer.cents(), customer.call().settled_at) == ((100, 30, 0), None)
    assert len(customer.alerts("call_unsettled")) == 1


def test_in_progress_after_a_free_settlement_is_refreshed_and_alerted(customer):
    # Given a call that its report settled as never connected
    customer.reserve(seconds=30)
    deny(customer, NEVER)
    assert customer.cents() == (100, 0, 0)
    # When its provider reports late that it talked
    customer.report_status(customer.call(), "in_progress", later(41))
    assert customer.jobs("look_at_call") == ["c1"]
    # Then the refresh is compared, and an alert is raised
    customer.refresh(customer.call(), "ended", later(50), **NEVER)
    (alert,) = customer.alerts("call_differs")
    assert (
        alert.details["why"]
        == "the call was settled as one without a conversation, but Vapi reports one"
    )
    assert customer.cents() == (100, 0, 0)


# A second report


def test_second_report_with_another_duration_is_alerted(talked):
    talked.report(talked.call(), 10, later(40))
    talked.report(talked.call(), 40, later(41))
    assert talked.cents() == (90, 0, 0)
    (alert,) = talked.alerts("call_differs")
    assert alert.details == {
        "settled_micros": 10 * CENT,
        "said_micros": 40 * CENT,
        "said_ms": 40_000,
    }


def test_a_second_report_completes_a_missing_cost(talked):
    talked.report(talked.call(), None, later(40))
    assert talked.call().cost_micros is None
    talked.report(talked.call(), 33, later(41))
    assert (talked.cents(), talked.call().settled_by) == ((67, 0, 0), "report")


def test_second_report_that_denies_the_first_is_alerted(talked):
    talked.report(talked.call(), 10, later(40))
    deny(talked, NEVER, now=41)
    assert talked.cents() == (90, 0, 0)
    assert [one.details["said_micros"] for one in talked.alerts("call_differs")] == [0]
