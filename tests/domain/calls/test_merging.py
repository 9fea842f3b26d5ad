"""A reservation and a call reported before it: one call, one hold, one charge."""

from __future__ import annotations

import pytest

from base.outcomes import Refused
from domain.calls import queries as call_queries
from domain.calls import status_check
from domain.calls.rates import Rate
from domain.calls.reconcile import expire_unreported
from tests.db.support import at_once, patiently
from tests.domain.calls.support import CENT, Line
from tests.domain.support import T0, later
from tests.support.world import make_organization


def name(line, mark="v"):
    return f"{mark}-{line.id}"[:64]


def adopted(line):
    (call,) = [call for call in line.calls() if call.origin == "adopted"]
    return call


def talks(line, now=T0, mark="v", **more):
    line.hear(name(line, mark), "in_progress", now, direction="outbound", **more)
    return next(one for one in line.calls() if one.provider_call_id == name(line, mark))


def charges(line):
    """List the entries that charged calls, as (key, cents)."""
    found = line.do(lambda s: [call_queries.see_call(s, s.merge(call)) for call in line.calls()])
    entries = {entry.entry_no: entry for one in found for entry in one.entries}
    return [(one.operation_key, one.amount_micros / CENT) for one in entries.values()]


def code_of(work):
    with pytest.raises(Refused) as caught:
        work()
    return caught.value.code


def shown(line, any_id):
    return line.do(lambda s: call_queries.see_call(s, call_queries.find_call(s, any_id, line.id)))


@pytest.mark.parametrize("pairs_by", ["reserve", "commit"])
@pytest.mark.parametrize("reported", ["talks", "over", "charged"])
def test_a_call_reported_before_its_pairing_is_charged_once(line, reported, pairs_by):
    # Given a reservation without Vapi's ID, and a report of a call that may belong to it
    line.reserve("c1", seconds=30, provider=None, appointment_id="visit")
    call = talks(line)
    assert line.cents() == (100, 90, 0)
    if reported == "over":
        line.hear(call, "ended", later(20))
    elif reported == "charged":
        line.report(call, 20, later(21))
    # When the company names Vapi's ID
    if pairs_by == "reserve":
        again = line.reserve("c1", provider=name(line), now=later(22))
        assert again.outcome.ok == (reported != "charged")
    elif reported == "talks":
        # A call in progress cannot be committed
        assert code_of(lambda: line.commit("c1", 20, later(22), name(line))) == "CALL_IN_PROGRESS"
        line.reserve("c1", provider=name(line), now=later(22))
    else:
        done = line.commit("c1", 20, later(22), name(line))
        assert done.call.id == call.id
    if reported != "charged":
        line.report(call, 20, later(23))
    # Then there is one charge and no hold, and both IDs lead to the call
    assert line.cents() == (80, 0, 0)
    assert charges(line) == [(f"call:{call.id}:commit", 20)]
    seen = shown(line, "c1")
    assert (seen.call.id, seen.merged) == (call.id, ["c1"])
    assert shown(line, call.id).call.id == shown(line, "visit").call.id == call.id
    assert [one.what for one in seen.timeline].count("merged") == 2
    assert [one.id for one in line.do(lambda s: list(call_queries.list_calls(
        s, organization_id=line.id, live=False)))] == [call.id]  # fmt: skip


def test_merged_call_keeps_the_reserved_amount(line):
    line.reserve("c1", seconds=40, provider=None)
    line.terms(step_seconds=20, warn_before_seconds=0)
    call = talks(line)
    assert line.cents() == (100, 60, 0)
    line.reserve("c1", provider=name(line), now=later(1))
    assert line.hold(call.id).reserved_micros == 40 * CENT
    assert (line.hold("c1").status, line.cents()) == ("released", (100, 40, 0))


def test_a_merged_call_frees_the_money_that_its_own_reservation_held(line):
    # Given a reservation of all money, so that the reported call gets no hold
    line.reserve("c1", seconds=100, provider=None)
    call = talks(line)
    assert call.end_cause == "insufficient_funds"
    line.report(call, 20, later(20))
    assert line.cents() == (100, 100, 20)
    # When it is paired, Then the outstanding amount is paid and nothing is frozen
    line.commit("c1", 20, later(30), name(line))
    assert line.cents() == (80, 0, 0)


def test_first_reservation_may_arrive_after_the_first_report(line):
    call = talks(line)
    reserved = line.reserve("c1", provider=name(line), now=later(3), appointment_id="visit")
    assert (reserved.outcome.ok, reserved.call.id) == (True, call.id)
    assert line.cents() == (100, 60, 0)
    line.report(call, 20, later(23))
    assert line.commit("c1", 20, later(24)).outcome.replayed
    assert line.cents() == (80, 0, 0)
    assert shown(line, "c1").call.id == shown(line, "visit").call.id == call.id


def test_rate_of_the_named_number_is_used_when_no_report_names_one(line):
    line.rate(Rate(120 * CENT, 1), "outbound:+44")
    line.reserve("c1", seconds=10, provider=None, number="+442012345678")
    call = talks(line)
    line.reserve("c1", provider=name(line), now=later(1))
    assert line.call(call.id).micros_per_minute == 120 * CENT
    line.report(call, 20, later(20))
    assert line.cents() == (60, 0, 0)


@pytest.mark.parametrize("direction", ["web", "inbound"])
def test_merged_call_keeps_the_rate_of_its_own_direction(line, direction):
    # Given a cheap rate for the reserved number
    line.rate(Rate(6 * CENT, 1), "outbound:+44")
    line.reserve("c1", seconds=10, provider=None, number="+442012345678")
    # When the reservation is paired with a call that was not outbound
    line.hear(name(line), "in_progress", T0, direction=direction)
    call = adopted(line)
    own = call.micros_per_minute
    line.reserve("c1", provider=name(line), now=later(1))
    # Then the call's own rate is charged
    assert line.call(call.id).micros_per_minute == own == 60 * CENT
    line.report(call, 20, later(20))
    assert line.cents() == (80, 0, 0)


def test_charge_without_the_named_numbers_rate_is_alerted(line):
    line.rate(Rate(120 * CENT, 1), "outbound:+44")
    line.reserve("c1", seconds=10, provider=None, number="+442012345678")
    line.report(name(line), 20, later(20), direction="outbound")
    line.reserve("c1", provider=name(line), now=later(21))
    assert line.cents() == (80, 0, 0)
    (alert,) = line.alerts("call_differs")
    assert (alert.details["settled_micros"], alert.details["said_micros"]) == (200_000, 400_000)


def test_a_second_call_with_the_metadata_of_a_merged_one_is_its_own(line):
    line.reserve("c1", seconds=10, provider=None)
    first = talks(line)
    line.reserve("c1", provider=name(line))
    second = talks(line, later(1), "w", **line.metadata("c1"))
    assert (second.id in ("c1", first.id), line.call("c1").merged_into) == (False, first.id)


def test_a_merged_call_keeps_no_other_commit_waiting(line):
    for one in ("c1", "c2"):
        line.reserve(one, seconds=10, provider=None)
    call = talks(line)
    line.reserve("c1", provider=name(line), now=later(1))
    line.report(call, 20, later(20))
    assert line.commit("c2", 10, later(21)).outcome.ok
    assert line.cents() == (70, 0, 0)


def test_merging_again_changes_nothing(line):
    line.reserve("c1", seconds=30, provider=None)
    call = talks(line)
    for second in (1, 2, 3):
        assert line.reserve("c1", provider=name(line), now=later(second)).call.id == call.id
    assert line.timeline("c1") == ["reserved", "merged"]
    assert line.timeline(call.id).count("merged") == 1


def test_a_call_is_merged_with_one_reservation_at_most(line):
    for one in ("c1", "c2"):
        line.reserve(one, seconds=10, provider=None)
    talks(line)
    assert line.reserve("c1", provider=name(line)).outcome.ok
    for refused in ("c2", "c3"):
        outcome = line.reserve(refused, provider=name(line)).outcome
        assert outcome.outcome == "IDEMPOTENCY_CONFLICT"
    assert code_of(lambda: line.commit("c1", 5, provider="w")) == "IDEMPOTENCY_CONFLICT"
    assert sorted(one.id for one in line.calls() if one.origin == "reserved") == ["c1", "c2"]


def test_admitted_call_or_call_of_another_is_not_merged(line, shared):
    other = Line(shared, make_organization(shared))
    theirs = talks(other)
    asked = line.call(line.let_in())
    line.reserve("c1", seconds=10, provider=None)
    for one in (theirs.provider_call_id, asked.provider_call_id):
        assert line.reserve("c1", provider=one).outcome.outcome == "IDEMPOTENCY_CONFLICT"
        assert line.reserve("c9", provider=one).outcome.outcome == "IDEMPOTENCY_CONFLICT"
    assert line.call("c1").provider_call_id is None


def test_pairing_from_many_threads_at_once_makes_one_call(line):
    line.reserve("c1", seconds=20, provider=None)
    call = talks(line)
    reserve = patiently(lambda: line.reserve("c1", provider=name(line), now=later(1)))
    report = patiently(lambda: line.report(call, 20, later(20)))
    at_once([reserve, report] * 4)
    assert line.cents() == (80, 0, 0)
    assert charges(line) == [(f"call:{call.id}:commit", 20)]


# Commits that cannot identify the call that they charge


def test_commit_without_vapis_id_is_refused_while_a_call_is_unpaired(line):
    line.reserve("c1", seconds=30, provider=None)
    call = talks(line)
    line.report(call, 20, later(20))
    assert line.cents() == (80, 30, 0)
    assert code_of(lambda: line.commit("c1", 20, later(21))) == "UNPAIRED_CALL"
    assert line.cents() == (80, 30, 0)
    # Releasing the reservation is always possible
    line.commit("c1", 0, later(22))
    assert line.cents() == (80, 0, 0)


@pytest.mark.parametrize(
    "other_call",
    ["inbound", "web", "other number", "over before", "free", "paired"],
)
def test_a_commit_is_not_refused_for_a_call_that_cannot_be_it(line, other_call):
    if other_call == "over before":
        line.report(name(line), 5, T0, direction="outbound")
    line.reserve("c1", seconds=20, provider=None, number="+15550001234", now=later(60))
    fields = {"direction": "outbound"}
    if other_call in ("inbound", "web"):
        fields["direction"] = other_call
    if other_call == "other number":
        fields["their_party"] = "…9999"
    if other_call == "paired":
        line.reserve("c2", seconds=10, provider=name(line), now=later(60))
    if other_call != "over before":
        seconds = 0 if other_call == "free" else 5
        line.report(name(line), seconds, later(70), never_connected=seconds == 0, **fields)
    line.commit("c1", 20, later(80))
    assert line.call("c1").cost_micros == 20 * CENT


def test_a_report_after_an_unpaired_commit_waits_for_the_pairing(line):
    # Given a commit that arrived before every report
    line.reserve("c1", seconds=30, provider=None)
    line.commit("c1", 20, later(21))
    assert line.cents() == (80, 0, 0)
    # When a call is reported that may belong to it, Then it is not charged again
    report = {"direction": "outbound", "started_at": later(1), "ended_at": later(21)}
    for second in (25, 26):
        line.report(name(line), 20, later(second), **report)
    assert line.cents() == (80, 0, 0)
    (alert,) = line.alerts("call_unsettled")
    assert "c1" in alert.details["why"]
    # And once it is paired it is the same call, charged once
    assert line.commit("c1", 20, later(30), name(line)).outcome.replayed
    assert (line.cents(), line.alerts("call_unsettled")) == ((80, 0, 0), [])
    assert charges(line) == [("call:c1:commit", 20)]
    assert (adopted(line).cost_micros, adopted(line).settled_by) == (20 * CENT, "api")


def test_a_report_of_a_call_after_the_commit_is_charged_at_once(line):
    line.reserve("c1", seconds=30, provider=None)
    line.commit("c1", 20, later(21))
    report = {"direction": "outbound", "started_at": later(40), "ended_at": later(45)}
    line.report(name(line), 5, later(46), **report)
    assert line.cents() == (75, 0, 0)


def test_a_paired_call_that_talks_after_its_commit_is_ended(line):
    line.reserve("c1", seconds=30, provider=None)
    line.commit("c1", 20, later(21))
    call = talks(line, later(22))
    line.reserve("c1", provider=name(line), now=later(23))
    call = line.call(call.id)
    assert (call.settled_by, call.end_cause) == ("api", "settled")
    assert line.cents() == (80, 0, 0)
    assert len(line.alerts("call_not_ended")) == 1


def test_a_paired_call_that_talks_is_ended_though_an_operator_settled(line):
    # Given a reservation that an operator has settled, and a call that continues
    line.reserve("c1", seconds=30, provider=None)
    line.settle_manually("c1", 20, later(21))
    call = talks(line, later(22))
    # When the company pairs them, Then the call does not continue unmetered
    line.reserve("c1", provider=name(line), now=later(23))
    call = line.call(call.id)
    assert (call.cost_micros, call.end_cause) == (20 * CENT, "settled")
    assert (line.jobs("end_call"), line.cents()) == ([call.id], (80, 0, 0))
    assert len(line.alerts("call_not_ended")) == 1


@pytest.mark.parametrize("seconds", [1, 20])
def test_a_charge_before_the_pairing_is_compared_with_the_call(line, seconds):
    # Given a commit of `seconds` before the report, which reports 20
    line.reserve("c1", seconds=30, provider=None)
    line.commit("c1", seconds, later(21))
    over = {"direction": "outbound", "started_at": later(1), "ended_at": later(21)}
    line.report(name(line), 20, later(25), **over)
    # When they are paired, Then the call is refreshed, and a difference raises an alert
    line.commit("c1", seconds, later(30), name(line))
    call = adopted(line)
    assert line.jobs("look_at_call") == [call.id]
    line.refresh(call, "ended", later(31), duration_ms=20_000, **over)
    fields = [one.details["said_micros"] for one in line.alerts("call_differs")]
    assert fields == ([] if seconds == 20 else [20 * CENT])
    assert line.cents() == (100 - seconds, 0, 0)


def test_a_paired_call_does_not_wait_for_another_reservation(line):
    # Given a charged reservation that is never paired, and a call paired with another reservation
    for one in ("c1", "c2"):
        line.reserve(one, seconds=20, provider=None)
    line.commit("c1", 5, later(5))
    call = talks(line, later(6), started_at=later(4))
    line.reserve("c2", provider=name(line), now=later(7))
    # When its report arrives, Then it is charged
    line.report(call, 20, later(24), started_at=later(4), ended_at=later(24))
    assert (line.cents(), line.alerts("call_unsettled")) == ((75, 0, 0), [])


def test_call_that_was_charged_twice_is_alerted(line):
    # Given two charges for one call, as an older version could leave them
    line.reserve("c1", seconds=30, provider=None)
    line.commit("c1", 20, later(21))
    call = talks(line, later(22))
    line.settle_manually(call.id, 20, later(23))
    assert line.cents() == (60, 0, 0)
    # When the company pairs them, Then no entry is rewritten, and an alert is raised
    for second in (30, 31):
        assert line.commit("c1", 20, later(second), name(line)).outcome.replayed
    (alert,) = line.alerts("call_charged_twice")
    assert (alert.severity, alert.details["reservation"]) == ("critical", "c1")
    assert line.cents() == (60, 0, 0)
    assert line.call("c1").merged_into is None


def test_an_expired_reservation_is_merged_too(line):
    line.reserve("c1", seconds=30, provider=None)
    assert line.do(lambda s: expire_unreported(s, line.id, later(930))) == ["c1"]
    call = talks(line, later(940))
    line.reserve("c1", provider=name(line), now=later(941))
    line.report(call, 20, later(960))
    assert line.commit("c1", 20, later(961)).outcome.replayed
    assert line.cents() == (80, 0, 0)


def test_costs_count_a_merged_call_once(line):
    line.reserve("c1", seconds=30, provider=None)
    line.commit("c1", 20, later(21))
    line.hear(name(line), "ended", later(22), direction="outbound")
    line.commit("c1", 20, later(30), name(line))
    day = T0.date()
    (costs,) = line.do(
        lambda s: call_queries.costs_by_day(s, organization_id=line.id, first_day=day, last_day=day)
    )
    assert (costs.calls, costs.cost_micros) == (1, 20 * CENT)


def test_status_of_a_merged_call_is_returned_by_any_of_its_ids(line):
    line.reserve("c1", seconds=30, provider=None)
    call = talks(line)
    line.reserve("c1", provider=name(line))

    def left(call_id, organization_id):
        return line.do(
            lambda s: status_check.check_status(
                s, call_id, organization_id=organization_id, said_seconds=None, now=later(10)
            )
        ).remaining_seconds

    assert {left(one, line.id) for one in ("c1", call.id, name(line))} == {90}
    assert left(call.id, None) == 90
