"""A reservation and a call reported before it: one call, one hold, one charge."""

from __future__ import annotations

import pytest

from base.outcomes import Refused
from domain.calls import queries as call_queries
from domain.calls import status_check
from domain.calls.rates import Rate
from domain.calls.reconcile import expire_unreported
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import CENT, CallCustomer
from tests.domain.support import T0, later
from tests.support.world import make_organization


def vapi_id(customer, mark="v"):
    return f"{mark}-{customer.id}"[:64]


def adopted(customer):
    (call,) = [call for call in customer.calls() if call.origin == "adopted"]
    return call


def talks(customer, now=T0, mark="v", **more):
    customer.report_status(
        vapi_id(customer, mark), "in_progress", now, direction="outbound", **more
    )
    return next(one for one in customer.calls() if one.provider_call_id == vapi_id(customer, mark))


def charges(customer):
    """List the entries that charged calls, as (key, cents)."""
    found = customer.do(
        lambda s: [call_queries.read_call_details(s, s.merge(call)) for call in customer.calls()]
    )
    entries = {entry.entry_no: entry for one in found for entry in one.entries}
    return [(one.operation_key, one.amount_micros / CENT) for one in entries.values()]


def code_of(work):
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.code


def shown(customer, any_id):
    return customer.do(
        lambda s: call_queries.read_call_details(s, call_queries.find_call(s, any_id, customer.id))
    )


@pytest.mark.parametrize("pairs_by", ["reserve", "commit"])
@pytest.mark.parametrize("reported", ["talks", "over", "charged"])
def test_a_call_reported_before_its_pairing_is_charged_once(customer, reported, pairs_by):
    # Given a reservation without Vapi's ID, and a report of a call that may belong to it
    customer.reserve("c1", seconds=30, provider=None, appointment_id="visit")
    call = talks(customer)
    assert customer.cents() == (100, 90, 0)
    if reported == "over":
        customer.report_status(call, "ended", later(20))
    elif reported == "charged":
        customer.report(call, 20, later(21))
    # When the company names Vapi's ID
    if pairs_by == "reserve":
        again = customer.reserve("c1", provider=vapi_id(customer), now=later(22))
        assert again.outcome.ok == (reported != "charged")
    elif reported == "talks":
        # A call in progress cannot be committed
        assert (
            code_of(lambda: customer.commit("c1", 20, later(22), vapi_id(customer)))
            == "CALL_IN_PROGRESS"
        )
        customer.reserve("c1", provider=vapi_id(customer), now=later(22))
    else:
        done = customer.commit("c1", 20, later(22), vapi_id(customer))
        assert done.call.id == call.id
    if reported != "charged":
        customer.report(call, 20, later(23))
    # Then there is one charge and no hold, and both IDs lead to the call
    assert customer.cents() == (80, 0, 0)
    assert charges(customer) == [(f"call:{call.id}:commit", 20)]
    seen = shown(customer, "c1")
    assert (seen.call.id, seen.merged) == (call.id, ["c1"])
    assert shown(customer, call.id).call.id == shown(customer, "visit").call.id == call.id
    assert [one.what for one in seen.timeline].count("merged") == 2
    assert [one.id for one in customer.do(lambda s: list(call_queries.list_calls(
        s, organization_id=customer.id, live=False)))] == [call.id]  # fmt: skip


def test_merged_call_keeps_the_reserved_amount(customer):
    customer.reserve("c1", seconds=40, provider=None)
    customer.terms(step_seconds=20, warn_before_seconds=0)
    call = talks(customer)
    assert customer.cents() == (100, 60, 0)
    customer.reserve("c1", provider=vapi_id(customer), now=later(1))
    assert customer.hold(call.id).reserved_micros == 40 * CENT
    assert (customer.hold("c1").status, customer.cents()) == ("released", (100, 40, 0))


def test_a_merged_call_frees_the_money_that_its_own_reservation_held(customer):
    # Given a reservation of all money, so that the reported call gets no hold
    customer.reserve("c1", seconds=100, provider=None)
    call = talks(customer)
    assert call.end_cause == "insufficient_funds"
    customer.report(call, 20, later(20))
    assert customer.cents() == (100, 100, 20)
    # When it is paired, Then the outstanding amount is paid and nothing is frozen
    customer.commit("c1", 20, later(30), vapi_id(customer))
    assert customer.cents() == (80, 0, 0)


def test_first_reservation_may_arrive_after_the_first_report(customer):
    call = talks(customer)
    reserved = customer.reserve(
        "c1", provider=vapi_id(customer), now=later(3), appointment_id="visit"
    )
    assert (reserved.outcome.ok, reserved.call.id) == (True, call.id)
    assert customer.cents() == (100, 60, 0)
    customer.report(call, 20, later(23))
    assert customer.commit("c1", 20, later(24)).outcome.replayed
    assert customer.cents() == (80, 0, 0)
    assert shown(customer, "c1").call.id == shown(customer, "visit").call.id == call.id


def test_rate_of_the_named_number_is_used_when_no_report_names_one(customer):
    customer.rate(Rate(120 * CENT, 1), "outbound:+44")
    customer.reserve("c1", seconds=10, provider=None, number="+442012345678")
    call = talks(customer)
    customer.reserve("c1", provider=vapi_id(customer), now=later(1))
    assert customer.call(call.id).micros_per_minute == 120 * CENT
    customer.report(call, 20, later(20))
    assert customer.cents() == (60, 0, 0)


@pytest.mark.parametrize("direction", ["web", "inbound"])
def test_merged_call_keeps_the_rate_of_its_own_direction(customer, direction):
    # Given a cheap rate for the reserved number
    customer.rate(Rate(6 * CENT, 1), "outbound:+44")
    customer.reserve("c1", seconds=10, provider=None, number="+442012345678")
    # When the reservation is paired with a call that was not outbound
    customer.report_status(vapi_id(customer), "in_progress", T0, direction=direction)
    call = adopted(customer)
    own = call.micros_per_minute
    customer.reserve("c1", provider=vapi_id(customer), now=later(1))
    # Then the call's own rate is charged
    assert customer.call(call.id).micros_per_minute == own == 60 * CENT
    customer.report(call, 20, later(20))
    assert customer.cents() == (80, 0, 0)


def test_charge_without_the_named_numbers_rate_is_alerted(customer):
    customer.rate(Rate(120 * CENT, 1), "outbound:+44")
    customer.reserve("c1", seconds=10, provider=None, number="+442012345678")
    customer.report(vapi_id(customer), 20, later(20), direction="outbound")
    customer.reserve("c1", provider=vapi_id(customer), now=later(21))
    assert customer.cents() == (80, 0, 0)
    (alert,) = customer.alerts("call_differs")
    assert (alert.details["settled_micros"], alert.details["said_micros"]) == (200_000, 400_000)


def test_a_second_call_with_the_metadata_of_a_merged_one_is_its_own(customer):
    customer.reserve("c1", seconds=10, provider=None)
    first = talks(customer)
    customer.reserve("c1", provider=vapi_id(customer))
    second = talks(customer, later(1), "w", **customer.metadata("c1"))
    assert (second.id in ("c1", first.id), customer.call("c1").merged_into) == (False, first.id)


def test_a_merged_call_keeps_no_other_commit_waiting(customer):
    for one in ("c1", "c2"):
        customer.reserve(one, seconds=10, provider=None)
    call = talks(customer)
    customer.reserve("c1", provider=vapi_id(customer), now=later(1))
    customer.report(call, 20, later(20))
    assert customer.commit("c2", 10, later(21)).outcome.ok
    assert customer.cents() == (70, 0, 0)


def test_merging_again_changes_nothing(customer):
    customer.reserve("c1", seconds=30, provider=None)
    call = talks(customer)
    for second in (1, 2, 3):
        assert (
            customer.reserve("c1", provider=vapi_id(customer), now=later(second)).call.id == call.id
        )
    assert customer.timeline("c1") == ["reserved", "merged"]
    assert customer.timeline(call.id).count("merged") == 1


def test_a_call_is_merged_with_one_reservation_at_most(customer):
    for one in ("c1", "c2"):
        customer.reserve(one, seconds=10, provider=None)
    talks(customer)
    assert customer.reserve("c1", provider=vapi_id(customer)).outcome.ok
    for refused in ("c2", "c3"):
        outcome = customer.reserve(refused, provider=vapi_id(customer)).outcome
        assert outcome.outcome == "IDEMPOTENCY_CONFLICT"
    assert code_of(lambda: customer.commit("c1", 5, provider="w")) == "IDEMPOTENCY_CONFLICT"
    assert sorted(one.id for one in customer.calls() if one.origin == "reserved") == ["c1", "c2"]


def test_admitted_call_or_call_of_another_is_not_merged(customer, shared):
    other = CallCustomer(shared, make_organization(shared))
    theirs = talks(other)
    asked = customer.call(customer.admit_call())
    customer.reserve("c1", seconds=10, provider=None)
    for one in (theirs.provider_call_id, asked.provider_call_id):
        assert customer.reserve("c1", provider=one).outcome.outcome == "IDEMPOTENCY_CONFLICT"
        assert customer.reserve("c9", provider=one).outcome.outcome == "IDEMPOTENCY_CONFLICT"
    assert customer.call("c1").provider_call_id is None


def test_pairing_from_many_threads_at_once_makes_one_call(customer):
    customer.reserve("c1", seconds=20, provider=None)
    call = talks(customer)
    reserve = with_retries(lambda: customer.reserve("c1", provider=vapi_id(customer), now=later(1)))
    report = with_retries(lambda: customer.report(call, 20, later(20)))
    at_once([reserve, report] * 4)
    assert customer.cents() == (80, 0, 0)
    assert charges(customer) == [(f"call:{call.id}:commit", 20)]


# Commits that cannot identify the call that they charge


def test_commit_without_vapis_id_is_refused_while_a_call_is_unpaired(customer):
    customer.reserve("c1", seconds=30, provider=None)
    call = talks(customer)
    customer.report(call, 20, later(20))
    assert customer.cents() == (80, 30, 0)
    assert code_of(lambda: customer.commit("c1", 20, later(21))) == "UNPAIRED_CALL"
    assert customer.cents() == (80, 30, 0)
    # Releasing the reservation is always possible
    customer.commit("c1", 0, later(22))
    assert customer.cents() == (80, 0, 0)


@pytest.mark.parametrize(
    "other_call",
    ["inbound", "web", "other number", "over before", "free", "paired"],
)
def test_a_commit_is_not_refused_for_a_call_that_cannot_be_it(customer, other_call):
    if other_call == "over before":
        customer.report(vapi_id(customer), 5, T0, direction="outbound")
    customer.reserve("c1", seconds=20, provider=None, number="+15550001234", now=later(60))
    fields = {"direction": "outbound"}
    if other_call in ("inbound", "web"):
        fields["direction"] = other_call
    if other_call == "other number":
        fields["their_party"] = "…9999"
    if other_call == "paired":
        customer.reserve("c2", seconds=10, provider=vapi_id(customer), now=later(60))
    if other_call != "over before":
        seconds = 0 if other_call == "free" else 5
        customer.report(
            vapi_id(customer), seconds, later(70), never_connected=seconds == 0, **fields
        )
    customer.commit("c1", 20, later(80))
    assert customer.call("c1").cost_micros == 20 * CENT


def test_a_report_after_an_unpaired_commit_waits_for_the_pairing(customer):
    # Given a commit that arrived before every report
    customer.reserve("c1", seconds=30, provider=None)
    customer.commit("c1", 20, later(21))
    assert customer.cents() == (80, 0, 0)
    # When a call is reported that may belong to it, Then it is not charged again
    report = {"direction": "outbound", "started_at": later(1), "ended_at": later(21)}
    for second in (25, 26):
        customer.report(vapi_id(customer), 20, later(second), **report)
    assert customer.cents() == (80, 0, 0)
    (alert,) = customer.alerts("call_unsettled")
    assert "c1" in alert.details["why"]
    # And once it is paired it is the same call, charged once
    assert customer.commit("c1", 20, later(30), vapi_id(customer)).outcome.replayed
    assert (customer.cents(), customer.alerts("call_unsettled")) == ((80, 0, 0), [])
    assert charges(customer) == [("call:c1:commit", 20)]
    assert (adopted(customer).cost_micros, adopted(customer).settled_by) == (20 * CENT, "api")


def test_a_report_of_a_call_after_the_commit_is_charged_at_once(customer):
    customer.reserve("c1", seconds=30, provider=None)
    customer.commit("c1", 20, later(21))
    report = {"direction": "outbound", "started_at": later(40), "ended_at": later(45)}
    customer.report(vapi_id(customer), 5, later(46), **report)
    assert customer.cents() == (75, 0, 0)


def test_a_paired_call_that_talks_after_its_commit_is_ended(customer):
    customer.reserve("c1", seconds=30, provider=None)
    customer.commit("c1", 20, later(21))
    call = talks(customer, later(22))
    customer.reserve("c1", provider=vapi_id(customer), now=later(23))
    call = customer.call(call.id)
    assert (call.settled_by, call.end_cause) == ("api", "settled")
    assert customer.cents() == (80, 0, 0)
    assert len(customer.alerts("call_not_ended")) == 1


def test_a_paired_call_that_talks_is_ended_though_an_operator_settled(customer):
    # Given a reservation that an operator has settled, and a call that continues
    customer.reserve("c1", seconds=30, provider=None)
    customer.settle_manually("c1", 20, later(21))
    call = talks(customer, later(22))
    # When the company pairs them, Then the call does not continue unmetered
    customer.reserve("c1", provider=vapi_id(customer), now=later(23))
    call = customer.call(call.id)
    assert (call.cost_micros, call.end_cause) == (20 * CENT, "settled")
    assert (customer.jobs("end_call"), customer.cents()) == ([call.id], (80, 0, 0))
    assert len(customer.alerts("call_not_ended")) == 1


@pytest.mark.parametrize("seconds", [1, 20])
def test_a_charge_before_the_pairing_is_compared_with_the_call(customer, seconds):
    # Given a commit of `seconds` before the report, which reports 20
    customer.reserve("c1", seconds=30, provider=None)
    customer.commit("c1", seconds, later(21))
    over = {"direction": "outbound", "started_at": later(1), "ended_at": later(21)}
    customer.report(vapi_id(customer), 20, later(25), **over)
    # When they are paired, Then the call is refreshed, and a difference raises an alert
    customer.commit("c1", seconds, later(30), vapi_id(customer))
    call = adopted(customer)
    assert customer.jobs("look_at_call") == [call.id]
    customer.refresh(call, "ended", later(31), duration_ms=20_000, **over)
    fields = [one.details["said_micros"] for one in customer.alerts("call_differs")]
    assert fields == ([] if seconds == 20 else [20 * CENT])
    assert customer.cents() == (100 - seconds, 0, 0)


def test_a_paired_call_does_not_wait_for_another_reservation(customer):
    # Given a charged reservation that is never paired, and a call paired with another reservation
    for one in ("c1", "c2"):
        customer.reserve(one, seconds=20, provider=None)
    customer.commit("c1", 5, later(5))
    call = talks(customer, later(6), started_at=later(4))
    customer.reserve("c2", provider=vapi_id(customer), now=later(7))
    # When its report arrives, Then it is charged
    customer.report(call, 20, later(24), started_at=later(4), ended_at=later(24))
    assert (customer.cents(), customer.alerts("call_unsettled")) == ((75, 0, 0), [])


def test_call_that_was_charged_twice_is_alerted(customer):
    # Given two charges for one call, as an older version could leave them
    customer.reserve("c1", seconds=30, provider=None)
    customer.commit("c1", 20, later(21))
    call = talks(customer, later(22))
    customer.settle_manually(call.id, 20, later(23))
    assert customer.cents() == (60, 0, 0)
    # When the company pairs them, Then no entry is rewritten, and an alert is raised
    for second in (30, 31):
        assert customer.commit("c1", 20, later(second), vapi_id(customer)).outcome.replayed
    (alert,) = customer.alerts("call_charged_twice")
    assert (alert.severity, alert.details["reservation"]) == ("critical", "c1")
    assert customer.cents() == (60, 0, 0)
    assert customer.call("c1").merged_into is None


def test_an_expired_reservation_is_merged_too(customer):
    customer.reserve("c1", seconds=30, provider=None)
    assert customer.do(lambda s: expire_unreported(s, customer.id, later(930))) == ["c1"]
    call = talks(customer, later(940))
    customer.reserve("c1", provider=vapi_id(customer), now=later(941))
    customer.report(call, 20, later(960))
    assert customer.commit("c1", 20, later(961)).outcome.replayed
    assert customer.cents() == (80, 0, 0)


def test_costs_count_a_merged_call_once(customer):
    customer.reserve("c1", seconds=30, provider=None)
    customer.commit("c1", 20, later(21))
    customer.report_status(vapi_id(customer), "ended", later(22), direction="outbound")
    customer.commit("c1", 20, later(30), vapi_id(customer))
    day = T0.date()
    (costs,) = customer.do(
        lambda s: call_queries.costs_by_day(
            s, organization_id=customer.id, first_day=day, last_day=day
        )
    )
    assert (costs.calls, costs.cost_micros) == (1, 20 * CENT)


def test_status_of_a_merged_call_is_returned_by_any_of_its_ids(customer):
    customer.reserve("c1", seconds=30, provider=None)
    call = talks(customer)
    customer.reserve("c1", provider=vapi_id(customer))

    def left(call_id, organization_id):
        return customer.do(
            lambda s: status_check.check_status(
                s, call_id, organization_id=organization_id, reported_seconds=None, now=later(10)
            )
        ).remaining_seconds

    assert {left(one, customer.id) for one in ("c1", call.id, vapi_id(customer))} == {90}
    assert left(call.id, None) == 90
