"""Settlement: a call is charged once, by the first source of its duration.

Without any reliable source, an operator decides.
"""

from __future__ import annotations

import pytest

from base.facts import CALL_DURATION_MS_MAX
from base.outcomes import Refused
from db.models import OperatorAction
from domain.calls import ending, settlement
from domain.calls import reconcile as watch
from domain.calls.rates import Rate
from domain.calls.reconcile import expire_unreported
from domain.calls.rows import CallNotFound
from domain.calls.settlement import NotSettled
from domain.enforcement import enforce_entitlement
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import CENT
from tests.domain.support import active_freezes, debit, forget_jobs, later, staged
from tests.domain.wallet.hold_support import commit, everything


@pytest.fixture
def reserved(customer):
    """A call with a hold of thirty seconds, which talks since ten seconds after T0."""
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "in_progress", later(10))
    forget_jobs(customer.database, customer.id)
    return customer


# By the report


@pytest.mark.parametrize(
    ("seconds", "cost", "released"), [(20, 20, 10), (29.001, 30, 0), (30, 30, 0)]
)
def test_a_report_charges_the_real_duration_and_gives_back_the_rest(
    reserved, seconds, cost, released
):
    reserved.report(reserved.call(), seconds, later(50))
    call, hold = reserved.call(), reserved.hold()
    assert (call.status, call.settled_by, call.cost_micros) == ("ended", "report", cost * CENT)
    assert call.duration_ms == round(seconds * 1000)
    assert (hold.captured_micros, hold.released_micros) == (cost * CENT, released * CENT)
    assert reserved.cents() == (100 - cost, 0, 0)
    assert call.tick_at is None


def test_call_that_cost_more_than_its_hold_takes_from_available(reserved):
    reserved.report(reserved.call(), 45, later(60))
    assert reserved.cents() == (55, 0, 0)
    assert reserved.alerts("call_shortfall") == []


def test_shortfall_is_outstanding_freezes_alerts_and_ends_other_calls(reserved):
    # Given two live calls, and a debt limit
    reserved.debt(20)
    reserved.reserve("c2", seconds=40)
    # When one has cost all available money, the debt limit and ten cents more
    reserved.report(reserved.call(), 90, later(120))
    # Then no more than the limit is charged: the other call's hold stays whole
    assert reserved.cents() == (20, 40, 10)
    assert active_freezes(reserved.database, reserved.id) == {"call_shortfall"}
    (alert,) = reserved.alerts("call_shortfall")
    assert alert.details == {"owed_micros": 10 * CENT, "cost_micros": 90 * CENT}
    # And the enforcement that follows ends the other call
    assert staged(reserved.database, reserved.id, "enforce_organization")
    reserved.do(lambda s: enforce_entitlement(s, reserved.id, later(121)))
    assert reserved.call("c2").end_cause == "frozen_wallet"
    # And new money pays the outstanding amount, which lifts the freeze
    reserved.pay(50)
    assert active_freezes(reserved.database, reserved.id) == set()


@pytest.mark.parametrize("never", [True, False])
def test_call_that_cost_nothing_releases_its_whole_hold(customer, never):
    # Given a minimum, which an unanswered call does not cost
    customer.rate(Rate(60 * CENT, 60, 50 * CENT))
    customer.reserve(seconds=30)
    customer.report_status(customer.call(), "ringing", later(1))
    customer.report(customer.call(), None if never else 0, later(50), never_connected=never)
    assert customer.cents() == (100, 0, 0)
    assert (customer.hold().status, customer.hold().billed_micros) == ("released", None)
    assert (customer.call().cost_micros, customer.call().duration_ms) == (0, 0)
    assert customer.call().oddities == []


def test_a_minimum_and_whole_minutes_are_charged(customer):
    customer.rate(Rate(60 * CENT, 60, 70 * CENT))
    customer.reserve(seconds=30)
    customer.report(customer.call(), 1, later(50))
    assert customer.cents() == (30, 0, 0)


# Unknown durations


def test_report_without_a_duration_stages_a_refresh_that_settles(reserved):
    reserved.report(reserved.call(), None, later(50))
    assert (reserved.call().settled_at, reserved.hold().status) == (None, "open")
    assert reserved.jobs("look_at_call") == ["c1"]
    reserved.refresh(reserved.call(), "ended", later(51), duration_ms=20_000)
    assert reserved.cents() == (80, 0, 0)
    assert reserved.call().settled_by == "look"


def test_our_meter_decides_when_the_refresh_has_no_duration_either(reserved):
    reserved.report(reserved.call(), None, later(33))
    reserved.refresh(reserved.call(), "ended", later(60))
    # The messages showed it talking from 10 to 33
    assert (reserved.call().cost_micros, reserved.call().duration_ms) == (23 * CENT, 23_000)
    assert "metered_by_us" in reserved.call().oddities
    assert reserved.alerts("call_unsettled") == []


def test_caller_that_hung_up_during_ringing_pays_nothing(customer):
    call_id = customer.admit_call()
    customer.report_status(customer.call(call_id), "ended", later(20))
    customer.refresh(customer.call(call_id), "ended", later(60), ended_at=later(20))
    assert customer.cents() == (100, 0, 0)
    assert (customer.call(call_id).duration_ms, customer.call(call_id).settled_by) == (0, "look")
    assert customer.alerts("call_unsettled") == []


@pytest.mark.parametrize(
    "found",
    [{"provider_cost_micros": 1}, {"anomalies": ("startedAt",)}],
    ids=["cost", "unreadable"],
)
def test_end_without_a_start_is_not_believed_when_contradicted(customer, found):
    call_id = customer.admit_call()
    customer.report_status(customer.call(call_id), "ended", later(20))
    customer.refresh(customer.call(call_id), "ended", later(60), ended_at=later(20), **found)
    assert customer.call(call_id).settled_at is None
    assert len(customer.alerts("call_unsettled")) == 1


def test_call_that_talked_is_metered_though_the_refresh_has_no_start(reserved):
    reserved.report_status(reserved.call(), "ended", later(33))
    reserved.refresh(reserved.call(), "ended", later(60), ended_at=later(33))
    assert reserved.call().cost_micros == 23 * CENT


def test_our_meter_is_bounded_by_the_longest_call(reserved):
    reserved.report_status(reserved.call(), "ended", later(10 + 2 * 43_260))
    reserved.refresh(reserved.call(), "ended", later(10 + 2 * 43_260))
    assert reserved.call().duration_ms == CALL_DURATION_MS_MAX


@pytest.mark.parametrize("begun", ["never heard of", "admitted"])
def test_hold_stays_until_an_operator_settles_when_duration_is_unknown(customer, begun):
    if begun == "admitted":
        call_id = customer.admit_call()
    else:
        customer.reserve(call_id := "c1", seconds=60)
    customer.report_status(customer.call(call_id), "ended", later(20))
    for _ in range(2):
        customer.refresh(customer.call(call_id), "ended", later(60))
    assert customer.cents() == (100, 60, 0)
    assert len(customer.alerts("call_unsettled")) == 1
    assert customer.call(call_id).settled_at is None
    # When an operator has settled it
    customer.settle_manually(call_id, 9, later(90))
    assert customer.cents() == (91, 0, 0)
    assert customer.alerts("call_unsettled") == []


# Once


def test_first_source_settles_and_the_same_again_changes_nothing(reserved):
    reserved.report(reserved.call(), 20, later(50))
    before = everything(reserved.database, reserved.id)
    reserved.report(reserved.call(), 20, later(51))
    reserved.refresh(reserved.call(), "ended", later(52), duration_ms=19_500)
    assert reserved.settle_by_api("c1", 20, later(53)).replayed
    assert everything(reserved.database, reserved.id) == before
    assert reserved.call().settled_by == "report"
    assert reserved.timeline().count("settled") == 1
    assert reserved.alerts("call_differs") == []


@pytest.mark.parametrize("other", ["report", "look"])
def test_contradicting_source_afterwards_moves_nothing_and_is_alerted(reserved, other):
    reserved.report_status(reserved.call(), "ended", later(33))
    reserved.settle_by_api("c1", 20, later(40))
    before = everything(reserved.database, reserved.id)
    if other == "report":
        reserved.report(reserved.call(), 25, later(50))
    else:
        reserved.refresh(reserved.call(), "ended", later(50), duration_ms=25_000)
    assert everything(reserved.database, reserved.id) == before
    (alert,) = reserved.alerts("call_differs")
    assert alert.details == {
        "settled_micros": 20 * CENT,
        "said_micros": 25 * CENT,
        "said_ms": 25_000,
    }


def test_concurrent_settlements_settle_once(reserved):
    reserved.report_status(reserved.call(), "ended", later(33))
    call = reserved.call()
    jobs = [with_retries(lambda: reserved.report(call, 20, later(50)))] * 4
    jobs += [
        with_retries(lambda: reserved.refresh(call, "ended", later(50), duration_ms=20_000))
    ] * 4
    jobs += [with_retries(lambda: reserved.settle_by_api("c1", 20, later(50)))] * 4
    results = at_once(jobs)
    assert not [one for one in results if isinstance(one, BaseException)]
    assert reserved.cents() == (80, 0, 0)
    assert reserved.timeline().count("settled") == 1


def test_call_whose_hold_was_committed_differently_needs_an_operator(reserved):
    commit(reserved.database, reserved.id, 5 * CENT)
    reserved.report(reserved.call(), 20, later(50))
    assert (reserved.cents(), reserved.call().settled_at) == ((95, 0, 0), None)
    (alert,) = reserved.alerts("call_unsettled")
    assert alert.details["why"] == "the ledger refused the charge: IDEMPOTENCY_CONFLICT"
    # An operator may settle it for the amount that was charged
    reserved.settle_manually("c1", 5, later(500))
    assert (reserved.cents(), reserved.call().cost_micros) == ((95, 0, 0), 5 * CENT)
    assert reserved.alerts("call_unsettled") == []


# By the company's API request


def test_api_settlement_is_replayed_and_a_different_one_refused(reserved):
    reserved.report_status(reserved.call(), "ended", later(33))
    assert reserved.settle_by_api("c1", 20, later(40)).ok
    assert reserved.call().settled_by == "api"
    assert reserved.settle_by_api("c1", 20, later(41)).replayed
    with pytest.raises(NotSettled) as no:
        reserved.settle_by_api("c1", 21, later(42))
    assert no.value.code == "IDEMPOTENCY_CONFLICT"
    assert reserved.cents() == (80, 0, 0)


def test_api_settlement_is_refused_beyond_the_longest_call_or_if_unknown(reserved):
    for seconds in (-0.001, CALL_DURATION_MS_MAX / 1000 + 0.001):
        with pytest.raises(Refused, match="ms"):
            reserved.settle_by_api("c1", seconds)
    with pytest.raises(CallNotFound):
        reserved.settle_by_api("another", 1)
    assert reserved.cents() == (100, 30, 0)


def test_api_charges_directly_after_the_hold_expired(customer):
    customer.reserve(seconds=30, provider=None)
    customer.do(lambda s: expire_unreported(s, customer.id, later(930)))
    customer.settle_by_api("c1", 20, later(940))
    assert customer.cents() == (80, 0, 0)
    assert (customer.call().settled_by, customer.hold().billed_micros) == ("api", 20 * CENT)


# By an operator


def test_an_operator_settles_once_with_a_reason(reserved):
    reserved.settle_manually("c1", 10, later(500), why="the report was lost")
    assert (reserved.cents(), reserved.call().settled_by) == ((90, 0, 0), "operator")
    with pytest.raises(Refused) as no:
        reserved.settle_manually("c1", 10, later(500))
    assert no.value.code == "CALL_SETTLED"
    acts = reserved.do(
        lambda s: s.query(OperatorAction).filter_by(subject=f"{reserved.id} c1").all()
    )
    assert [(act.act, act.operator, act.why) for act in acts] == [
        ("call.settle", "ann", "the report was lost")
    ]


def test_operator_may_settle_a_call_whose_hold_expired(customer):
    customer.reserve(seconds=30, provider=None)
    customer.do(lambda s: expire_unreported(s, customer.id, later(930)))
    customer.settle_manually("c1", 10, later(500))
    assert customer.cents() == (90, 0, 0)


def test_a_bound_holds_for_operators_too(reserved):
    with pytest.raises(Refused, match="ms"):
        reserved.settle_manually("c1", CALL_DURATION_MS_MAX / 1000 + 1, later(500))
    assert reserved.cents() == (100, 30, 0)


def test_cost_beyond_the_hold_is_outstanding_when_money_was_spent(reserved):
    debit(reserved.database, reserved.id, 70 * CENT)
    reserved.report(reserved.call(), 31, later(60))
    assert reserved.cents() == (0, 0, 1)


@pytest.mark.parametrize("settled_by", ["operator", "api", "expiry"])
def test_settling_a_call_that_could_not_be_ended_clears_its_alert(customer, settled_by):
    # Given a reserved call without the provider's ID, whose end is decided and cannot be ordered
    customer.reserve(provider=None)
    customer.decide("c1")
    for number in range(1, 4):
        round_ = customer.do(
            lambda s, number=number: ending.begin_round(s, customer.id, "c1", later(number))
        )
        customer.do(
            lambda s, round_=round_: ending.end_round(
                s, customer.id, "c1", round_, accepted=[], now=later(4)
            )
        )
    assert len(customer.alerts("call_not_ended")) == 1
    # When it is settled, or its hold expires
    if settled_by == "operator":
        customer.settle_manually("c1", 5, later(500))
    elif settled_by == "api":
        customer.settle_by_api("c1", 5, later(500))
    else:
        customer.do(lambda s: expire_unreported(s, customer.id, later(1_000)))
    # Then its ending is over, and the alert is cleared
    assert customer.call().settled_by == settled_by
    assert customer.alerts("call_not_ended") == []


def test_manual_settlement_clears_all_alerts_that_it_answers(reserved):
    # Given a call that continues, whose duration is unknown, and whose refreshes fail
    call = reserved.call()

    def raise_alerts(session):
        ending.alert_not_ended(session, call, "it does not end", later(20))
        settlement.alert_unsettled(session, call, "its duration cannot be told", later(20))
        watch.alert_unanswered(session, reserved.id, "c1", "silent", later(20))

    reserved.do(raise_alerts)
    reserved.settle_manually("c1", 5, later(500))
    for kind in ("call_not_ended", "call_unsettled", "hold_unanswered"):
        assert reserved.alerts(kind) == [], kind


def test_settled_call_that_talks_is_alerted_again(customer):
    customer.reserve(provider="v-" + customer.id[:40])
    customer.settle_by_api("c1", 0, later(5))
    customer.report_status(customer.call(), "in_progress", later(10))
    assert len(customer.alerts("call_not_ended")) == 1
