"""Calls ended by a fault of the platform: free up to a bound, marked and alerted."""

from __future__ import annotations

import pytest

from base.enums import FaultPolicy
from domain.calls.rates import Rate
from tests.domain.calls.support import CENT
from tests.domain.support import later

REASON = "call.in-progress.error-vapifault-worker-died"


@pytest.fixture
def talking(customer):
    """A call that talks since T0, with ninety-nine dollars in the wallet."""
    customer.pay(9_800)
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "in_progress")
    return customer


def end(customer, seconds, *, fault=True):
    fields = {"platform_fault": fault, "ended_reason": REASON}
    customer.report(customer.call(), seconds, later(seconds), **fields)


def test_platform_fault_is_free_marked_and_alerted(talking):
    end(talking, 20)
    call = talking.call()
    assert talking.cents() == (9_900, 0, 0)
    assert (call.duration_ms, call.cost_micros) == (20_000, 0)
    assert call.oddities == ["platform_fault_waived"]
    assert talking.timeline()[-1] == "waived"
    (alert,) = talking.alerts("call_waived")
    assert alert.severity == "warning"
    assert alert.details == {
        "reason": REASON,
        "waived_micros": 20 * CENT,
        "charged_micros": 0,
        "duration_ms": 20_000,
    }


@pytest.mark.parametrize(
    ("seconds", "minutes", "cost"),
    [(600, 10, 0), (601, 10, 1), (3_480, 10, 2_880), (3_480, 58, 0), (20, 0, 20), (61, 1, 1)],
)
def test_a_platform_fault_is_waived_up_to_the_configured_minutes(talking, seconds, minutes, cost):
    talking.terms(warn_before_seconds=0, fault_waived_minutes=minutes)
    end(talking, seconds)
    assert talking.cents() == (9_900 - cost, 0, 0)
    assert (talking.call().duration_ms, talking.call().cost_micros) == (seconds * 1000, cost * CENT)
    waived = seconds - cost
    found = [one.details["waived_micros"] for one in talking.alerts("call_waived")]
    assert found == ([waived * CENT] if waived else [])


def test_minimum_is_charged_for_the_part_that_is_not_waived(customer):
    customer.pay(900)
    customer.rate(Rate(60 * CENT, 1, 70 * CENT))
    customer.terms(warn_before_seconds=0, fault_waived_minutes=1)
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "in_progress")
    end(customer, 61)
    assert customer.cents() == (930, 0, 0)


def test_platform_fault_is_charged_when_the_policy_requires_it(talking):
    talking.terms(warn_before_seconds=0, fault_policy=FaultPolicy.CHARGE)
    end(talking, 20)
    assert talking.cents() == (9_880, 0, 0)
    assert (talking.call().oddities, talking.alerts("call_waived")) == ([], [])


def test_any_other_end_is_charged_in_full_and_not_alerted(talking):
    end(talking, 3_480, fault=False)
    assert talking.cents() == (6_420, 0, 0)
    assert (talking.call().oddities, talking.alerts("call_waived")) == ([], [])


def test_a_repeated_report_of_a_waived_call_changes_nothing(talking):
    end(talking, 20)
    end(talking, 20)
    assert talking.timeline().count("waived") == 1
    assert (talking.cents(), talking.alerts("call_differs")) == ((9_900, 0, 0), [])
