"""Calls whose provider reports an unknown status, or none."""

from __future__ import annotations

import pytest

from domain.calls import reconcile
from tests.domain.calls.support import OVER, report_absent
from tests.domain.support import forget_jobs, later


@pytest.fixture
def talking(customer):
    """A call in progress since T0, without any later message."""
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "in_progress")
    return customer


@pytest.mark.parametrize("status", ["deletion-failed", None])
def test_unknown_status_is_alerted_and_not_taken_as_alive(talking, status):
    # Given an open alert and an expired hold
    before = talking.hold().expires_at
    talking.do(lambda s: reconcile.alert_unanswered(s, talking.id, "c1", "503", later(OVER)))
    # When a refresh returns an unknown status
    talking.refresh(talking.call(), None, later(OVER + 1), unknown_status=status)
    # Then an alert is raised, the hold is neither extended nor returned, and nothing is cleared
    (alert,) = talking.alerts("call_status_unknown")
    assert alert.details["status"] == (status or "none given")
    assert alert.severity == "warning"
    assert len(talking.alerts("hold_unanswered")) == 1
    assert (talking.hold().expires_at, talking.hold().status) == (before, "open")
    assert (talking.call().status, talking.call().seen_at) == ("in_progress", later(0))
    # And the alert is raised once
    talking.refresh(talking.call(), None, later(OVER + 61), unknown_status=status)
    assert len(talking.alerts("call_status_unknown")) == 1


@pytest.mark.parametrize("answer", ["in_progress", "ended", "absent", "report"])
def test_alert_is_cleared_by_a_known_status(talking, answer):
    talking.refresh(talking.call(), None, later(5), unknown_status="archived")
    assert len(talking.alerts("call_status_unknown")) == 1
    if answer == "absent":
        report_absent(talking, later(200))
    elif answer == "report":
        talking.report(talking.call(), 20, later(30))
    else:
        talking.refresh(talking.call(), answer, later(30), duration_ms=20_000)
    assert talking.alerts("call_status_unknown") == []


def test_ended_call_with_an_unknown_status_is_settled_and_alerted(talking):
    found = {"unknown_status": "deletion-failed", "duration_ms": 20_000}
    talking.refresh(talking.call(), "ended", later(30), **found)
    assert talking.cents() == (80, 0, 0)
    assert len(talking.alerts("call_status_unknown")) == 1


def test_message_with_an_unknown_status_is_alerted_and_stages_a_refresh(talking):
    forget_jobs(talking.database, talking.id)
    talking.report_status(talking.call(), None, later(5), unknown_status="not-found")
    assert talking.jobs("look_at_call") == ["c1"]
    assert len(talking.alerts("call_status_unknown")) == 1
    assert talking.call().status == "in_progress"


def test_settled_call_with_an_unknown_status_is_not_alerted(talking):
    talking.report(talking.call(), 20, later(30))
    forget_jobs(talking.database, talking.id)
    talking.report_status(talking.call(), None, later(31), unknown_status="deletion-failed")
    talking.refresh(talking.call(), None, later(32), unknown_status="deletion-failed")
    assert talking.alerts("call_status_unknown") == []
    assert talking.jobs("look_at_call") == []
    assert talking.cents() == (80, 0, 0)
