"""Adopted calls, which never asked for admission.

Which organization pays, from when they are charged, and which alerts are raised.
"""

from __future__ import annotations

import pytest

from domain.calls.admission import withdraw
from domain.calls.entry_points import EntryPointKind
from domain.calls.rates import Rate, remove_rate
from domain.calls.reconcile import expire_unreported
from domain.calls.tick import TickResult
from domain.wallet import holds
from tests.db.support import at_once, patiently
from tests.domain.calls.support import CENT, RATE, Line, unknown_alerts
from tests.domain.support import ANN, T0, later
from tests.support.world import make_organization


def name(line, mark="v"):
    return f"{mark}-{line.id}"[:64]


def the_call(line):
    (call,) = line.calls()
    return call


# Calls that never asked for admission


def test_adopted_call_is_held_for_and_metered_from_its_start(line):
    # Given a call that has talked for forty seconds when its first message arrives
    assert line.hear(name(line), "in_progress", later(100), talking_ms=40_000)
    call = the_call(line)
    assert (call.status, call.direction, call.fail_open) == ("in_progress", "inbound", False)
    assert (call.metered_from, call.tick_at) == (later(60), later(100))
    assert line.hold(call.id).reserved_micros == 60 * CENT
    assert line.timeline(call.id) == ["reserved", "adopted", "in_progress"]
    # And it continues like any other call
    assert line.tick(later(100)) == TickResult()
    assert line.tick(later(113)) == TickResult(extended=1)
    line.report(call, 70, later(130))
    assert line.cents() == (30, 0, 0)


def test_number_that_never_asks_for_admission_is_alerted_once(line):
    # Given two calls to one number, neither of which asked for admission
    for mark in "vw":
        line.hear(name(line, mark), "in_progress")
    # Then the alert names the number and one of its calls
    (alert,) = line.alerts("door_unasked")
    assert (alert.subject, alert.severity) == (line.number_id, "warning")
    assert alert.details["call"] in {call.id for call in line.calls()}


def test_admitted_call_raises_no_alert_about_its_number(line):
    line.admit(external_id=name(line))
    line.hear(name(line), "in_progress")
    assert line.alerts("door_unasked") == []


@pytest.mark.parametrize("word", ["queued", "ringing"])
def test_call_that_does_not_talk_yet_may_still_be_admitted(line, word):
    assert not line.hear(name(line), word)
    assert line.calls() == []
    assert unknown_alerts(line.database, name(line)) == []
    assert line.admit(external_id=name(line)).refusal is None


@pytest.mark.parametrize(("cents", "held"), [(100, 60), (25, 25)])
def test_adopted_call_is_held_for_up_to_what_is_available(shared, org, cents, held):
    line = Line(shared, org, cents=cents)
    line.hear(name(line), "in_progress")
    assert line.cents() == (cents, held, 0)
    assert the_call(line).end_decided_at is None


def test_adopted_call_without_money_is_ended_and_charged(shared, org):
    line = Line(shared, org, cents=0)
    line.hear(name(line), "in_progress")
    call = the_call(line)
    assert (call.end_cause, call.tick_at, line.hold(call.id)) == ("insufficient_funds", None, None)
    assert line.jobs("end_call") == [call.id]
    line.report(call, 4, later(4))
    assert line.cents() == (0, 0, 4)
    assert len(line.alerts("call_shortfall")) == 1
    # And the shortfall's alert stays until the outstanding amount is paid
    line.pay(3)
    line.enforce()
    assert len(line.alerts("call_shortfall")) == 1
    line.pay(1)
    line.enforce()
    assert line.alerts("call_shortfall") == []


def test_adopted_call_of_a_frozen_organization_is_ended(line):
    line.freeze()
    line.hear(name(line), "in_progress")
    assert the_call(line).end_cause == "frozen_wallet"
    assert line.cents() == (100, 0, 0)


def test_adopted_call_that_is_over_is_charged_directly_once(line):
    for _ in range(2):
        assert line.report(name(line), 12, later(5))
    call = the_call(line)
    assert (call.status, call.cost_micros, call.settled_by) == ("ended", 12 * CENT, "report")
    assert line.cents() == (88, 0, 0)
    assert line.jobs("end_call") == []


def test_adopted_call_that_ended_waits_for_its_report(line):
    assert line.hear(name(line), "ended", later(1))
    assert (the_call(line).status, the_call(line).settled_at) == ("ended", None)
    line.report(name(line), 12, later(5))
    assert line.cents() == (88, 0, 0)


def test_concurrent_messages_about_an_unknown_call_make_one_call(line):
    jobs = [patiently(lambda: line.hear(name(line), "in_progress", later(1)))] * 8
    results = at_once(jobs)
    assert results == [True] * 8
    assert line.timeline(the_call(line).id).count("adopted") == 1
    assert line.cents() == (100, 60, 0)


# Which organization


def test_adopted_call_is_found_by_its_assistant_or_number(line):
    line.entry_point(EntryPointKind.ASSISTANT, line.assistant_id)
    assert line.hear(
        name(line), "in_progress", phone_number_id=None, assistant_id=line.assistant_id
    )
    assert the_call(line).assistant_id == line.assistant_id


@pytest.mark.parametrize("final", [True, False])
def test_call_of_no_organization_is_alerted_once(line, final):
    for _ in range(2):
        assert not line.hear(
            name(line), "in_progress", phone_number_id="another", final=final, duration_ms=9
        )
    (alert,) = unknown_alerts(line.database, name(line))
    assert (alert.severity, alert.organization_id) == ("critical", None)
    assert alert.details["phone_number"] == "another"
    assert line.calls() == []
    # Until an operator adds its number
    line.entry_point(EntryPointKind.PHONE_NUMBER, f"another-{line.id}"[:64])
    assert line.hear(name(line), "in_progress", phone_number_id=f"another-{line.id}"[:64])
    assert unknown_alerts(line.database, name(line)) == []


def test_call_without_a_rate_is_alerted_and_ended(line):
    line.do(lambda s: remove_rate(s, line.id, "default", operator=ANN, now=T0))
    assert line.hear(name(line), "in_progress")
    assert [one.details["why"] for one in line.alerts("call_unknown")] == ["no rate"]
    assert (the_call(line).end_cause, line.cents()) == ("no_rate", (100, 0, 0))
    # And once the organization has a rate, the call is charged
    line.rate(RATE)
    line.report(name(line), 5, later(5))
    assert line.alerts("call_unknown") == []
    assert line.cents() == (95, 0, 0)


def test_call_of_two_organizations_is_given_to_neither(line, shared):
    other = Line(shared, make_organization(shared))
    other.entry_point(EntryPointKind.ASSISTANT, other.assistant_id)
    assert not line.hear(name(line), "in_progress", assistant_id=other.assistant_id)
    assert line.calls() == other.calls() == []
    assert len(unknown_alerts(shared, name(line))) == 1


def test_call_admitted_while_the_database_was_away_keeps_its_id(line):
    # Given a call through a number that no message names
    ours = line.fail_open(name(line))
    nobodys = {"phone_number_id": "unlisted", "assistant_id": "unlisted"}
    assert line.hear(name(line), "in_progress", **ours, **nobodys)
    call = the_call(line)
    assert (call.id, call.fail_open) == ("call_given", True)
    # The call asked for admission, so its number raises no alert
    assert line.alerts("door_unasked") == []
    assert line.cents() == (100, 60, 0)
    # And the next message finds it
    assert line.hear(name(line), "forwarding", later(5), **ours, **nobodys)
    assert the_call(line).status == "forwarding"


@pytest.mark.parametrize(
    "ours", [{"organization_id": "nobody", "call_id": "c"}, {"organization_id": "", "call_id": ""}]
)
def test_unknown_organization_has_no_calls(line, ours):
    assert not line.hear(name(line), "in_progress", phone_number_id="unlisted", **ours)
    assert len(unknown_alerts(line.database, name(line))) == 1


def test_second_call_with_the_firsts_id_is_a_separate_call(line):
    # Given a backend that dials twice for one of our calls
    line.reserve("c1", seconds=30, provider=name(line))
    ours = line.metadata("c1")
    line.hear(name(line), "ended", later(5), **ours)
    # When the second call talks
    assert line.hear(name(line, "w"), "in_progress", later(9), **ours)
    # Then each has its own row, hold and charge
    first, second = sorted(line.calls(), key=lambda call: call.created_at)
    assert (first.id, second.provider_call_id) == ("c1", name(line, "w"))
    assert second.id != "c1" and not second.fail_open
    line.report(name(line), 0, later(10), **ours)
    line.report(name(line, "w"), 20, later(30), **ours)
    assert line.cents() == (80, 0, 0)


def test_call_reserved_without_the_providers_id_is_found_by_our_ids(line):
    line.reserve("c1", seconds=30, provider=None)
    assert line.hear(name(line), "in_progress", later(5), **line.metadata("c1"))
    assert the_call(line).provider_call_id == name(line)
    line.report(name(line), 10, later(20))
    assert line.cents() == (90, 0, 0)


def test_a_web_call_has_its_own_rate(line):
    line.rate(Rate(120 * CENT, 1), "web")
    line.report(name(line), 10, direction="web")
    assert line.cents() == (80, 0, 0)


# Returned holds of calls that still talk


def given_up(line, how):
    line.reserve("c1", seconds=30, provider=None)
    if how == "expired":
        assert line.do(lambda s: expire_unreported(s, line.id, later(930))) == ["c1"]
    else:
        assert line.do(lambda s: withdraw(s, line.id, "c1", later(930)))
    assert (line.cents(), line.call().cost_micros) == ((100, 0, 0), 0)
    return line.metadata("c1")


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_a_call_that_was_given_up_and_talks_goes_on_and_is_charged(line, how):
    ours = given_up(line, how)
    line.hear(name(line), "in_progress", later(940), **ours)
    call = line.call(line.call().merged_into)
    assert (call.settled_at, call.metered_from) == (None, later(940))
    assert line.timeline()[-1] == "merged"
    assert line.timeline(call.id) == ["reserved", "held_again", "in_progress"]
    assert line.tick(later(940)) == TickResult()
    line.report(call, 8, later(950))
    assert line.cents() == (92, 0, 0)
    assert line.call(call.id).settled_by == "report"


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_a_call_that_was_given_up_and_talks_ends_with_a_freeze(line, how):
    ours = given_up(line, how)
    line.hear(name(line), "in_progress", later(940), **ours)
    line.freeze_manually(later(941))
    assert line.call(line.call().merged_into).end_cause == "frozen_wallet"


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_late_report_charges_a_call_that_was_given_up_directly_and_once(line, how):
    ours = given_up(line, how)
    for _ in range(2):
        line.report(name(line), 20, later(1_000), **ours)
    assert line.cents() == (80, 0, 0)
    assert (line.call().cost_micros, line.call().settled_by) == (20 * CENT, "report")
    hold = line.do(lambda s: holds.hold_of_call(s, line.id, "c1"))
    assert hold.billed_micros == 20 * CENT


def test_priced_call_is_not_opened_again(line):
    line.reserve("c1", seconds=30)
    line.settle_by_api("c1", 20, later(20))
    line.hear(line.call(), "in_progress", later(30))
    assert (line.call().settled_by, line.call().tick_at) == ("api", None)
    assert line.cents() == (80, 0, 0)
