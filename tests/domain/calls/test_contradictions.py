"""Calls with contradictory reports or actions: which wallet pays, which call ends."""

from __future__ import annotations

from functools import partial

import pytest

from domain.calls import ending, status_check
from domain.calls import reconcile as watch
from domain.calls.admission import withdraw
from domain.calls.entry_points import EntryPointKind
from domain.calls.reconcile import ABSENT_SECONDS, expire_unreported
from domain.calls.settlement import CallSettled, NotSettled
from domain.calls.tick import TickResult
from tests.domain.calls.support import CENT, OVER, CallCustomer, execute, report_absent
from tests.domain.support import forget_jobs, later
from tests.support.world import make_organization

# Which wallet pays


def test_ids_of_an_unverified_sender_charge_no_other_organization(customer, other):
    # Given a reserved call, and a stranger that calls another organization's number and sends the
    # reserved call's IDs
    customer.reserve("c1", provider=None)
    ours = {"organization_id": customer.id, "call_id": "c1"}
    other.report_status(f"w-{other.id}", "in_progress", later(5), **ours)
    # Then the number's organization pays, and the reserved call still waits for its own messages
    (call,) = other.calls()
    assert (call.provider_call_id, call.fail_open) == (f"w-{other.id}", False)
    assert customer.call("c1").provider_call_id is None
    other.report(call, 10, later(20), **ours)
    assert (customer.cents(), other.cents()) == ((100, 30, 0), (90, 0, 0))


def test_call_of_two_organizations_is_not_given_to_a_third_that_it_names(customer, other):
    third = CallCustomer(customer.database, make_organization(customer.database))
    other.entry_point(EntryPointKind.ASSISTANT, other.assistant_id)
    assert not customer.report_status(
        f"v-{customer.id}",
        "in_progress",
        assistant_id=other.assistant_id,
        organization_id=third.id,
        call_id="call_given",
    )
    assert customer.calls() == other.calls() == third.calls() == []


@pytest.mark.parametrize("direction", ["web", "outbound"])
def test_only_an_incoming_call_can_be_admitted_without_the_database(customer, direction):
    # A caller from a browser can send any metadata
    assert not customer.report_status(
        f"v-{customer.id}",
        "in_progress",
        phone_number_id=None,
        direction=direction,
        **customer.fail_open(f"v-{customer.id}"),
    )
    assert customer.calls() == []


def test_debt_limit_used_by_a_call_that_is_over_is_not_lent_again(customer):
    # Given a call that used the debt limit and is over, with a late report; and another call
    customer.debt(60)
    first = "c1"
    customer.reserve(first, seconds=60)
    customer.report_status(customer.call(first), "in_progress")
    customer.reserve("c2", seconds=40)
    customer.tick(later(53))
    assert customer.call(first).debt_micros == 60 * CENT
    customer.report_status(customer.call(first), "ended", later(115))
    # When the other call has used nearly all of its hold
    customer.report_status(customer.call("c2"), "in_progress", later(116))
    now = later(116 + 33)
    remaining = customer.do(
        lambda s: (
            status_check.check_status(
                s, "c2", organization_id=customer.id, reported_seconds=0, now=now
            ).remaining_seconds
        )
    )
    # Then it gets nothing of what the first has used, and no outstanding amount arises
    assert remaining == 7
    assert customer.tick(now) == TickResult(ended=1)
    assert customer.call("c2").debt_micros == 0
    customer.report(customer.call(first), 115, later(160))
    customer.report(customer.call("c2"), 40, later(161))
    assert customer.cents() == (-55, 0, 0)


# Which call ends


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_ending_is_resumed_when_a_returned_call_talks(customer, how):
    # Given a call that was to end and whose hold was then returned, so that nothing was left to end
    customer.reserve("c1", seconds=30, provider=None)
    assert customer.decide("c1", later(5))
    if how == "expired":
        assert customer.do(lambda s: expire_unreported(s, customer.id, later(OVER))) == ["c1"]
    else:
        assert customer.do(lambda s: withdraw(s, customer.id, "c1", later(OVER)))
    forget_jobs(customer.database, customer.id)
    # When it talks nevertheless
    customer.report_status(f"v-{customer.id}", "in_progress", later(940), **customer.metadata())
    # Then its ending is staged again
    assert customer.call("c1").settled_at is None
    assert customer.jobs("end_call") == ["c1"]


@pytest.mark.parametrize("was_ending", [False, True])
@pytest.mark.parametrize("seconds", [0, 2])
def test_call_that_talks_after_the_company_settled_it_is_ended_and_alerted(
    customer, seconds, was_ending
):
    # Given a call that the company settled while it was ringing
    customer.reserve("c1", seconds=30)
    customer.report_status(customer.call(), "ringing", later(1))
    if was_ending:
        assert customer.decide("c1", later(2))
        forget_jobs(customer.database, customer.id)
    customer.settle_by_api("c1", seconds, later(3))
    # When the callee answers nevertheless
    customer.report_status(customer.call(), "in_progress", later(5))
    # Then it is ended in rounds until the provider reports its end, and an alert is raised
    assert customer.jobs("end_call") == ["c1"]
    assert customer.call().end_cause == ("operator" if was_ending else "settled")
    assert [one.severity for one in customer.alerts("call_not_ended")] == ["critical"]
    assert customer.do(lambda s: ending.begin_round(s, customer.id, "c1", later(6))).speaks
    # And its price stays the company's
    customer.report(customer.call(), 9, later(14))
    assert customer.do(lambda s: ending.begin_round(s, customer.id, "c1", later(15))) is None
    assert (customer.cents(), customer.alerts("call_not_ended")) == ((100 - seconds, 0, 0), [])
    assert [one.details["said_ms"] for one in customer.alerts("call_differs")] == [9_000]


@pytest.mark.parametrize(("by_company", "by_hand", "cents"), [(2, 2, 98), (0, 9, 91)])
def test_operator_ends_a_talking_call_that_the_company_settled(
    customer, by_company, by_hand, cents
):
    # Given a call that talks although the company settled it, and whose end is never reported
    customer.reserve("c1", seconds=30)
    customer.settle_by_api("c1", by_company, later(3))
    customer.report_status(customer.call(), "in_progress", later(5))
    report_absent(customer, later(ABSENT_SECONDS + 1), "c1")
    assert customer.do(lambda s: ending.begin_round(s, customer.id, "c1", later(600))) is not None
    # When an operator settles it with the actual duration, which may not contradict the charge
    if by_company:
        with pytest.raises(NotSettled):
            customer.settle_manually("c1", 0, later(600))
    customer.settle_manually("c1", by_hand, later(601))
    # Then it is over, and charged once
    assert customer.do(lambda s: ending.begin_round(s, customer.id, "c1", later(602))) is None
    assert (customer.cents(), customer.call().settled_by) == ((cents, 0, 0), "operator")
    with pytest.raises(CallSettled):
        customer.settle_manually("c1", by_hand, later(603))


def test_settled_call_is_not_ended_when_it_did_not_talk_since(customer):
    # Given two settled calls: one that still rings, and one that an operator settled
    customer.reserve("c1")
    customer.report_status(customer.call(), "ringing", later(1))
    customer.settle_by_api("c1", 0, later(2))
    customer.reserve("c2")
    customer.settle_manually("c2", 0, later(2))
    # When the wallet is frozen, and the second call has another message
    customer.report_status(customer.call("c2"), "in_progress", later(3))
    customer.freeze_manually(later(4))
    # Then no ending is staged for calls that are settled
    assert customer.jobs("end_call") == []


def test_call_unknown_to_the_provider_is_not_extended_and_expires(customer):
    # Given an admitted call that Vapi does not know
    call_id = customer.admit_call()
    report_absent(customer, later(ABSENT_SECONDS), call_id)
    # Then its hold is not extended any more, so that it expires
    assert customer.tick(later(ABSENT_SECONDS)) == TickResult()
    assert customer.hold(call_id).extensions == 0
    report_absent(customer, later(60 + 900), call_id)
    assert customer.cents() == (100, 0, 0)
    assert customer.call(call_id).settled_by == "expiry"


def test_call_unknown_to_the_provider_is_metered_again_when_it_talks(customer):
    call_id = customer.admit_call()
    report_absent(customer, later(ABSENT_SECONDS), call_id)
    customer.report_status(customer.call(call_id), "in_progress", later(130))
    assert customer.call(call_id).tick_at == later(130)


def test_call_admitted_by_a_repeated_request_is_not_withdrawn(customer):
    # Given a request that was answered late, and a repeat that was answered meanwhile
    made = customer.admit(external_id=f"v-{customer.id}")
    again = customer.admit(later(1), external_id=f"v-{customer.id}")
    assert (made.is_new, again.is_new, again.call_id) == (True, False, made.call_id)
    # When the late request is withdrawn
    assert not customer.do(lambda s: withdraw(s, customer.id, made.call_id, later(2)))
    # Then the admitted call keeps its hold
    assert customer.cents() == (100, 60, 0)


def test_refreshes_without_a_result_do_not_block_those_of_other_calls(customer, monkeypatch):
    # Given as many old calls as one sweep takes, whose refreshes return nothing
    monkeypatch.setattr(watch, "SWEEP_MAX", 1)
    # Other calls in this database may be due as well, so make these two the oldest
    customer.reserve("c1")
    customer.reserve("c2")
    execute(
        customer.database,
        "UPDATE calls SET created_at = :at WHERE organization_id = :org AND id = 'c1'",
        org=customer.id,
        at=later(-100_000),
    )
    execute(
        customer.database,
        "UPDATE calls SET created_at = :at WHERE organization_id = :org AND id = 'c2'",
        org=customer.id,
        at=later(-90_000),
    )
    asked = []
    for now in (later(161), later(222)):
        forget_jobs(customer.database, customer.id)
        customer.do(partial(watch.sweep, now=now, report_seconds=120, silent_seconds=0))
        asked += customer.jobs("look_at_call")
    assert asked == ["c1", "c2"]


@pytest.mark.parametrize(("cents", "refusal"), [(22, "INSUFFICIENT_FUNDS"), (23, None)])
def test_call_that_would_end_at_once_is_not_admitted(shared, org, cents, refusal):
    # Given a margin of twenty seconds, which is longer than the platform's shortest call
    customer = CallCustomer(shared, org, cents=cents)
    customer.terms(warn_before_seconds=0, margin_seconds=20)
    assert customer.admit().refusal == refusal
    assert not customer.calls() or not customer.tick(later(0)).ended
