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
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import CENT, RATE, CallCustomer, unknown_alerts
from tests.domain.support import ANN, T0, later
from tests.support.world import make_organization


def vapi_id(customer, mark="v"):
    return f"{mark}-{customer.id}"[:64]


def the_call(customer):
    (call,) = customer.calls()
    return call


# Calls that never asked for admission


def test_adopted_call_is_held_for_and_metered_from_its_start(customer):
    # Given a call that has talked for forty seconds when its first message arrives
    assert customer.report_status(vapi_id(customer), "in_progress", later(100), talking_ms=40_000)
    call = the_call(customer)
    assert (call.status, call.direction, call.fail_open) == ("in_progress", "inbound", False)
    assert (call.metered_from, call.tick_at) == (later(60), later(100))
    assert customer.hold(call.id).reserved_micros == 60 * CENT
    assert customer.timeline(call.id) == ["reserved", "adopted", "in_progress"]
    # And it continues like any other call
    assert customer.tick(later(100)) == TickResult()
    assert customer.tick(later(113)) == TickResult(extended=1)
    customer.report(call, 70, later(130))
    assert customer.cents() == (30, 0, 0)


def test_number_that_never_asks_for_admission_is_alerted_once(customer):
    # Given two calls to one number, neither of which asked for admission
    for mark in "vw":
        customer.report_status(vapi_id(customer, mark), "in_progress")
    # Then the alert names the number and one of its calls
    (alert,) = customer.alerts("door_unasked")
    assert (alert.subject, alert.severity) == (customer.number_id, "warning")
    assert alert.details["call"] in {call.id for call in customer.calls()}


def test_admitted_call_raises_no_alert_about_its_number(customer):
    customer.admit(external_id=vapi_id(customer))
    customer.report_status(vapi_id(customer), "in_progress")
    assert customer.alerts("door_unasked") == []


@pytest.mark.parametrize("status", ["queued", "ringing"])
def test_call_that_does_not_talk_yet_may_still_be_admitted(customer, status):
    assert not customer.report_status(vapi_id(customer), status)
    assert customer.calls() == []
    assert unknown_alerts(customer.database, vapi_id(customer)) == []
    assert customer.admit(external_id=vapi_id(customer)).refusal is None


@pytest.mark.parametrize(("cents", "held"), [(100, 60), (25, 25)])
def test_adopted_call_is_held_for_up_to_what_is_available(shared, org, cents, held):
    customer = CallCustomer(shared, org, cents=cents)
    customer.report_status(vapi_id(customer), "in_progress")
    assert customer.cents() == (cents, held, 0)
    assert the_call(customer).end_decided_at is None


def test_adopted_call_without_money_is_ended_and_charged(shared, org):
    customer = CallCustomer(shared, org, cents=0)
    customer.report_status(vapi_id(customer), "in_progress")
    call = the_call(customer)
    assert (call.end_cause, call.tick_at, customer.hold(call.id)) == (
        "insufficient_funds",
        None,
        None,
    )
    assert customer.jobs("end_call") == [call.id]
    customer.report(call, 4, later(4))
    assert customer.cents() == (0, 0, 4)
    assert len(customer.alerts("call_shortfall")) == 1
    # And the shortfall's alert stays until the outstanding amount is paid
    customer.pay(3)
    customer.enforce()
    assert len(customer.alerts("call_shortfall")) == 1
    customer.pay(1)
    customer.enforce()
    assert customer.alerts("call_shortfall") == []


def test_adopted_call_of_a_frozen_organization_is_ended(customer):
    customer.freeze()
    customer.report_status(vapi_id(customer), "in_progress")
    assert the_call(customer).end_cause == "frozen_wallet"
    assert customer.cents() == (100, 0, 0)


def test_adopted_call_that_is_over_is_charged_directly_once(customer):
    for _ in range(2):
        assert customer.report(vapi_id(customer), 12, later(5))
    call = the_call(customer)
    assert (call.status, call.cost_micros, call.settled_by) == ("ended", 12 * CENT, "report")
    assert customer.cents() == (88, 0, 0)
    assert customer.jobs("end_call") == []


def test_adopted_call_that_ended_waits_for_its_report(customer):
    assert customer.report_status(vapi_id(customer), "ended", later(1))
    assert (the_call(customer).status, the_call(customer).settled_at) == ("ended", None)
    customer.report(vapi_id(customer), 12, later(5))
    assert customer.cents() == (88, 0, 0)


def test_concurrent_messages_about_an_unknown_call_make_one_call(customer):
    jobs = [
        with_retries(lambda: customer.report_status(vapi_id(customer), "in_progress", later(1)))
    ] * 8
    results = at_once(jobs)
    assert results == [True] * 8
    assert customer.timeline(the_call(customer).id).count("adopted") == 1
    assert customer.cents() == (100, 60, 0)


# Which organization


def test_adopted_call_is_found_by_its_assistant_or_number(customer):
    customer.entry_point(EntryPointKind.ASSISTANT, customer.assistant_id)
    assert customer.report_status(
        vapi_id(customer), "in_progress", phone_number_id=None, assistant_id=customer.assistant_id
    )
    assert the_call(customer).assistant_id == customer.assistant_id


@pytest.mark.parametrize("final", [True, False])
def test_call_of_no_organization_is_alerted_once(customer, final):
    for _ in range(2):
        assert not customer.report_status(
            vapi_id(customer), "in_progress", phone_number_id="another", final=final, duration_ms=9
        )
    (alert,) = unknown_alerts(customer.database, vapi_id(customer))
    assert (alert.severity, alert.organization_id) == ("critical", None)
    assert alert.details["phone_number"] == "another"
    assert customer.calls() == []
    # Until an operator adds its number
    customer.entry_point(EntryPointKind.PHONE_NUMBER, f"another-{customer.id}"[:64])
    assert customer.report_status(
        vapi_id(customer), "in_progress", phone_number_id=f"another-{customer.id}"[:64]
    )
    assert unknown_alerts(customer.database, vapi_id(customer)) == []


def test_call_without_a_rate_is_alerted_and_ended(customer):
    customer.do(lambda s: remove_rate(s, customer.id, "default", operator=ANN, now=T0))
    assert customer.report_status(vapi_id(customer), "in_progress")
    assert [one.details["why"] for one in customer.alerts("call_unknown")] == ["no rate"]
    assert (the_call(customer).end_cause, customer.cents()) == ("no_rate", (100, 0, 0))
    # And once the organization has a rate, the call is charged
    customer.rate(RATE)
    customer.report(vapi_id(customer), 5, later(5))
    assert customer.alerts("call_unknown") == []
    assert customer.cents() == (95, 0, 0)


def test_call_of_two_organizations_is_given_to_neither(customer, shared):
    other = CallCustomer(shared, make_organization(shared))
    other.entry_point(EntryPointKind.ASSISTANT, other.assistant_id)
    assert not customer.report_status(
        vapi_id(customer), "in_progress", assistant_id=other.assistant_id
    )
    assert customer.calls() == other.calls() == []
    assert len(unknown_alerts(shared, vapi_id(customer))) == 1


def test_call_admitted_while_the_database_was_away_keeps_its_id(customer):
    # Given a call through a number that no message names
    ours = customer.fail_open(vapi_id(customer))
    nobodys = {"phone_number_id": "unlisted", "assistant_id": "unlisted"}
    assert customer.report_status(vapi_id(customer), "in_progress", **ours, **nobodys)
    call = the_call(customer)
    assert (call.id, call.fail_open) == ("call_given", True)
    # The call asked for admission, so its number raises no alert
    assert customer.alerts("door_unasked") == []
    assert customer.cents() == (100, 60, 0)
    # And the next message finds it
    assert customer.report_status(vapi_id(customer), "forwarding", later(5), **ours, **nobodys)
    assert the_call(customer).status == "forwarding"


@pytest.mark.parametrize(
    "ours", [{"organization_id": "nobody", "call_id": "c"}, {"organization_id": "", "call_id": ""}]
)
def test_unknown_organization_has_no_calls(customer, ours):
    assert not customer.report_status(
        vapi_id(customer), "in_progress", phone_number_id="unlisted", **ours
    )
    assert len(unknown_alerts(customer.database, vapi_id(customer))) == 1


def test_second_call_with_the_firsts_id_is_a_separate_call(customer):
    # Given a backend that dials twice for one of our calls
    customer.reserve("c1", seconds=30, provider=vapi_id(customer))
    ours = customer.metadata("c1")
    customer.report_status(vapi_id(customer), "ended", later(5), **ours)
    # When the second call talks
    assert customer.report_status(vapi_id(customer, "w"), "in_progress", later(9), **ours)
    # Then each has its own row, hold and charge
    first, second = sorted(customer.calls(), key=lambda call: call.created_at)
    assert (first.id, second.provider_call_id) == ("c1", vapi_id(customer, "w"))
    assert second.id != "c1" and not second.fail_open
    customer.report(vapi_id(customer), 0, later(10), **ours)
    customer.report(vapi_id(customer, "w"), 20, later(30), **ours)
    assert customer.cents() == (80, 0, 0)


def test_call_reserved_without_the_providers_id_is_found_by_our_ids(customer):
    customer.reserve("c1", seconds=30, provider=None)
    assert customer.report_status(
        vapi_id(customer), "in_progress", later(5), **customer.metadata("c1")
    )
    assert the_call(customer).provider_call_id == vapi_id(customer)
    customer.report(vapi_id(customer), 10, later(20))
    assert customer.cents() == (90, 0, 0)


def test_a_web_call_has_its_own_rate(customer):
    customer.rate(Rate(120 * CENT, 1), "web")
    customer.report(vapi_id(customer), 10, direction="web")
    assert customer.cents() == (80, 0, 0)


# Returned holds of calls that still talk


def given_up(customer, how):
    customer.reserve("c1", seconds=30, provider=None)
    if how == "expired":
        assert customer.do(lambda s: expire_unreported(s, customer.id, later(930))) == ["c1"]
    else:
        assert customer.do(lambda s: withdraw(s, customer.id, "c1", later(930)))
    assert (customer.cents(), customer.call().cost_micros) == ((100, 0, 0), 0)
    return customer.metadata("c1")


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_a_call_that_was_given_up_and_talks_goes_on_and_is_charged(customer, how):
    ours = given_up(customer, how)
    customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    call = customer.call(customer.call().merged_into)
    assert (call.settled_at, call.metered_from) == (None, later(940))
    assert customer.timeline()[-1] == "merged"
    assert customer.timeline(call.id) == ["reserved", "held_again", "in_progress"]
    assert customer.tick(later(940)) == TickResult()
    customer.report(call, 8, later(950))
    assert customer.cents() == (92, 0, 0)
    assert customer.call(call.id).settled_by == "report"


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_a_call_that_was_given_up_and_talks_ends_with_a_freeze(customer, how):
    ours = given_up(customer, how)
    customer.report_status(vapi_id(customer), "in_progress", later(940), **ours)
    customer.freeze_manually(later(941))
    assert customer.call(customer.call().merged_into).end_cause == "frozen_wallet"


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_late_report_charges_a_call_that_was_given_up_directly_and_once(customer, how):
    ours = given_up(customer, how)
    for _ in range(2):
        customer.report(vapi_id(customer), 20, later(1_000), **ours)
    assert customer.cents() == (80, 0, 0)
    assert (customer.call().cost_micros, customer.call().settled_by) == (20 * CENT, "report")
    hold = customer.do(lambda s: holds.hold_of_call(s, customer.id, "c1"))
    assert hold.billed_micros == 20 * CENT


def test_priced_call_is_not_opened_again(customer):
    customer.reserve("c1", seconds=30)
    customer.settle_by_api("c1", 20, later(20))
    customer.report_status(customer.call(), "in_progress", later(30))
    assert (customer.call().settled_by, customer.call().tick_at) == ("api", None)
    assert customer.cents() == (80, 0, 0)
