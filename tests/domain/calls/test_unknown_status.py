"""Calls whose provider gives a status that we do not know, or none at all."""

from __future__ import annotations

import pytest

from domain.calls import reconcile as watch
from tests.domain.calls.support import OVER, absent
from tests.domain.support import forget_jobs, later


@pytest.fixture
def talking(line):
    """A call in progress since T0, about which nobody has heard since."""
    line.reserve(seconds=30)
    line.hear(line.call(), "in_progress")
    return line


@pytest.mark.parametrize("status", ["deletion-failed", None])
def test_an_unknown_status_is_told_and_never_taken_as_alive(talking, status):
    # Given an alert that stands, and a hold that is over
    before = talking.hold().expires_at
    talking.do(lambda s: watch.tell_unanswered(s, talking.id, "c1", "503", later(OVER)))
    # When the provider's answer has a status that we do not know
    talking.look(talking.call(), None, later(OVER + 1), unknown_status=status)
    # Then a person knows, the hold is neither extended nor given back, and nothing is cleared
    (alert,) = talking.alerts("call_status_unknown")
    assert alert.details["status"] == (status or "none given")
    assert alert.severity == "warning"
    assert len(talking.alerts("hold_unanswered")) == 1
    assert (talking.hold().expires_at, talking.hold().status) == (before, "open")
    assert (talking.call().status, talking.call().seen_at) == ("in_progress", later(0))
    # And it is told once
    talking.look(talking.call(), None, later(OVER + 61), unknown_status=status)
    assert len(talking.alerts("call_status_unknown")) == 1


@pytest.mark.parametrize("answer", ["in_progress", "ended", "absent", "report"])
def test_the_alert_is_cleared_by_an_answer_that_we_know(talking, answer):
    talking.look(talking.call(), None, later(5), unknown_status="archived")
    assert len(talking.alerts("call_status_unknown")) == 1
    if answer == "absent":
        absent(talking, later(200))
    elif answer == "report":
        talking.report(talking.call(), 20, later(30))
    else:
        talking.look(talking.call(), answer, later(30), duration_ms=20_000)
    assert talking.alerts("call_status_unknown") == []


def test_a_call_that_has_an_end_is_settled_and_told_when_its_status_is_unknown(talking):
    found = {"unknown_status": "deletion-failed", "duration_ms": 20_000}
    talking.look(talking.call(), "ended", later(30), **found)
    assert talking.cents() == (80, 0, 0)
    assert len(talking.alerts("call_status_unknown")) == 1


def test_a_message_with_an_unknown_status_asks_the_provider_and_is_told(talking):
    forget_jobs(talking.database, talking.id)
    talking.hear(talking.call(), None, later(5), unknown_status="not-found")
    assert talking.jobs("look_at_call") == ["c1"]
    assert len(talking.alerts("call_status_unknown")) == 1
    assert talking.call().status == "in_progress"


def test_a_settled_call_is_not_told_of_when_its_status_is_unknown(talking):
    talking.report(talking.call(), 20, later(30))
    forget_jobs(talking.database, talking.id)
    talking.hear(talking.call(), None, later(31), unknown_status="deletion-failed")
    talking.look(talking.call(), None, later(32), unknown_status="deletion-failed")
    assert talking.alerts("call_status_unknown") == []
    assert talking.jobs("look_at_call") == []
    assert talking.cents() == (80, 0, 0)
