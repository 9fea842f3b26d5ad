"""Ending calls: decided once, ordered in rounds, over when the provider confirms."""

from __future__ import annotations

import pytest

from base.enums import BlockReason, EndCause
from base.operators import Operator
from db.models import OperatorAction, Subscription
from domain.calls import ending as endings
from domain.calls.ending import ALERT_ROUND, VAPI_ROUNDS
from domain.calls.rows import CallNotFound
from domain.enforcement import enforce_entitlement
from domain.entitlement import SubscriptionState
from tests.db.support import at_once, with_retries
from tests.domain.calls.support import CENT, execute
from tests.domain.support import (
    T0,
    debit,
    later,
    make_brand,
    refresh_subscription,
    report_subscription,
)
from tests.domain.wallet.support import override

AFTER = later(1)


def begin(customer, call_id="c1", now=T0):
    return customer.do(lambda s: endings.begin_round(s, customer.id, call_id, now))


def end(customer, done, accepted, call_id="c1", now=T0):
    return customer.do(
        lambda s: endings.end_round(s, customer.id, call_id, done, accepted=accepted, now=now)
    )


def subscription_of(customer):
    (one,) = customer.do(
        lambda s: s.query(Subscription).filter_by(organization_id=customer.id).all()
    )
    return one.external_id


def apply(customer, now=AFTER):
    return customer.do(lambda s: enforce_entitlement(s, customer.id, now))


@pytest.fixture
def ending(customer):
    """A call whose end is decided."""
    customer.reserve()
    customer.report_status(customer.call(), "in_progress")
    assert customer.decide("c1")
    return customer


# The decision


def test_end_is_decided_once(ending):
    assert not ending.decide("c1", later(1))
    assert (
        ending.do(lambda s: endings.end_live_calls(s, ending.id, EndCause.FROZEN_WALLET, later(2)))
        == 0
    )
    call = ending.call()
    assert (call.end_cause, call.end_decided_at, call.tick_at) == ("operator", T0, None)
    assert ending.jobs("end_call") == ["c1"]
    # The provider has not reported the end: the call lives, and its money stays held
    assert (call.status, ending.hold().status) == ("in_progress", "open")


def test_many_deciders_at_once_decide_once(customer):
    customer.reserve()
    jobs = [with_retries(lambda: customer.decide("c1"))] * 8 + [
        with_retries(customer.freeze_manually)
    ] * 2
    results = at_once(jobs)
    assert not [one for one in results if isinstance(one, BaseException)]
    assert customer.jobs("end_call") == ["c1"]
    assert customer.timeline().count("end_decided") == 1


@pytest.mark.parametrize("over", ["ended", "settled"])
def test_a_call_that_is_over_is_not_ended(customer, over):
    customer.reserve()
    if over == "ended":
        customer.report_status(customer.call(), "ended")
    else:
        customer.settle_by_api("c1", 1)
    assert not customer.decide("c1")
    assert customer.jobs("end_call") == []


def test_operator_ends_a_call_with_a_reason_and_once(customer):
    customer.reserve()

    def end_manually(call_id="c1"):
        return customer.do(
            lambda s: endings.end_manually(
                s, customer.id, call_id, operator=Operator("ann", "abuse"), now=T0
            )
        )

    with pytest.raises(CallNotFound):
        end_manually(call_id="another")
    assert customer.jobs("end_call") == []
    assert [end_manually(), end_manually()] == [True, False]
    acts = customer.do(
        lambda s: s.query(OperatorAction).filter_by(subject=f"{customer.id} c1").all()
    )
    assert [(act.act, act.operator) for act in acts] == [("call.end", "ann")]


# Rounds


def test_first_round_speaks_then_vapi_ends_the_call_then_twilio(ending):
    ending.terms(ending_text="Goodbye.")
    seen = []
    for second in range(VAPI_ROUNDS + 1):
        done = begin(ending, now=later(second))
        seen.append((done.number, done.speaks, done.always_uses_twilio, done.text))
        end(ending, done, ["say" if done.speaks else "end"], now=later(second))
    assert seen == [
        (1, True, False, "Goodbye."),
        (2, False, False, "Goodbye."),
        (3, False, True, "Goodbye."),
    ]
    assert ending.call().end_told_at == T0
    assert ending.timeline().count("end_told") == 3


def test_round_waits_for_speech_or_obedience_and_longer_after_the_alert(ending):
    done = begin(ending)
    assert end(ending, done, ["say"]) == 3.0
    done = begin(ending)
    assert end(ending, done, ["end"]) == 0.8
    assert end(ending, begin(ending), []) == 0.8
    while (done := begin(ending)).number < ALERT_ROUND:
        assert end(ending, done, ["end", "twilio"]) == 0.8
    assert end(ending, done, ["end", "twilio"]) == 15.0


def test_call_that_does_not_end_is_alerted_once_and_cleared_by_its_end(ending):
    for _ in range(ALERT_ROUND - 1):
        end(ending, begin(ending), ["end"])
    assert ending.alerts("call_not_ended") == []
    for _ in range(3):
        end(ending, begin(ending), ["end"])
    (alert,) = ending.alerts("call_not_ended")
    assert (alert.severity, alert.details["cause"]) == ("critical", "OPERATOR")
    assert ending.hold().status == "open"
    ending.report_status(ending.call(), "ended", later(60))
    assert ending.alerts("call_not_ended") == []


def test_alert_is_raised_when_neither_vapi_nor_twilio_accepts_the_order(ending):
    for _ in range(VAPI_ROUNDS):
        end(ending, begin(ending), [])
    assert ending.alerts("call_not_ended") == []
    end(ending, begin(ending), [])
    (alert,) = ending.alerts("call_not_ended")
    assert alert.details["why"] == "neither Vapi nor Twilio accepted the order to end the call"
    assert ending.call().end_told_at is None


@pytest.mark.parametrize("over", ["ended", "settled"])
def test_ended_call_has_no_further_round(ending, over):
    done = begin(ending)
    if over == "ended":
        ending.report_status(ending.call(), "ended", later(1))
    else:
        ending.settle_manually("c1", 1, later(1))
    assert end(ending, done, ["say"]) is None
    assert begin(ending) is None
    assert ending.call().end_rounds == 1


def test_no_alert_is_raised_when_the_call_ended_during_a_failed_round(ending):
    # Given a round in which neither Vapi nor Twilio accepts the order
    for _ in range(VAPI_ROUNDS):
        end(ending, begin(ending), [])
    done = begin(ending)
    # When the call ends before the round is recorded
    ending.report_status(ending.call(), "ended", later(1))
    assert end(ending, done, [], now=later(2)) is None
    # Then there is no alert, which nothing would ever clear
    assert ending.alerts("call_not_ended") == []


def test_a_round_of_a_call_that_is_none_is_refused(customer):
    for act in (begin, lambda customer: end(customer, None, [])):
        with pytest.raises(CallNotFound):
            act(customer)


def test_twilio_leg_is_searched_in_its_known_account_or_in_all_of_ours(ending):
    assert begin(ending).twilio_account_sids == ()
    for _ in range(2):
        make_brand(ending.database, ending.id)
    assert len(begin(ending).twilio_account_sids) == 2
    account = "AC" + "d" * 32
    ending.report_status(ending.call(), None, twilio_account_sid=account)
    assert begin(ending).twilio_account_sids == (account,)


# Warnings


def test_warning_has_the_organizations_text_and_is_not_sent_too_late(customer):
    customer.terms(warning_text="Nearly over.")

    def warning():
        return customer.do(lambda s: endings.warning_of(s, customer.id, "c1"))

    assert warning() is None
    customer.reserve(provider=None)
    assert warning() is None
    customer.reserve(provider=f"v-{customer.id}"[:64])
    assert warning() == (f"v-{customer.id}"[:64], "Nearly over.")
    customer.decide("c1")
    assert warning() is None
    execute(
        customer.database,
        "UPDATE calls SET end_decided_at = NULL, end_cause = NULL WHERE organization_id = :org",
        org=customer.id,
    )
    assert warning() is not None
    customer.settle_by_api("c1", 1)
    assert warning() is None


# Which calls enforcement ends


@pytest.fixture
def three(customer):
    """Two live calls and one that is over."""
    for call_id in ("c1", "c2", "c3"):
        customer.reserve(call_id, seconds=10)
    customer.report_status(customer.call("c2"), "in_progress")
    customer.report(customer.call("c3"), 10)
    return customer


def causes(customer):
    return [call.end_cause for call in customer.calls()]


def test_manual_freeze_ends_all_live_calls(three):
    three.freeze_manually(later(1))
    assert causes(three) == ["frozen_wallet", "frozen_wallet", None]
    assert three.jobs("end_call") == ["c1", "c2"]
    assert apply(three).calls_ended == 0


def test_subscription_ended_at_the_provider_ends_live_calls(three):
    refresh_subscription(three.database, subscription_of(three), three.id, "cancelled", later(1))
    assert causes(three) == ["subscription_inactive", "subscription_inactive", None]


def test_end_that_is_only_reported_lets_calls_use_their_holds(three):
    report_subscription(three.database, subscription_of(three), closing=True, now=later(1))
    assert apply(three).subscription_state is SubscriptionState.REPORTED
    assert causes(three) == [None, None, None]
    # But their holds are not extended
    three.report_status(three.call("c1"), "in_progress", later(1))
    three.tick(later(6))
    assert three.hold("c1").extensions == 0
    assert three.call("c1").end_cause == "frozen_wallet"
    assert three.call("c2").end_cause == "frozen_wallet"


def test_another_freeze_beside_a_reported_end_ends_them(three):
    report_subscription(three.database, subscription_of(three), closing=True, now=later(1))
    three.freeze_manually(later(2))
    assert causes(three) == ["frozen_wallet", "frozen_wallet", None]


def test_empty_wallet_lets_calls_use_their_holds(three):
    debit(three.database, three.id, 70 * CENT)
    assert three.cents() == (20, 20, 0)
    done = apply(three)
    assert (done.block, done.calls_ended) == (BlockReason.INSUFFICIENT_FUNDS, 0)
    assert causes(three) == [None, None, None]


def test_overridden_freeze_ends_no_calls(three):
    three.freeze()
    override(three.database, three.id, later(600))
    assert apply(three).calls_ended == 0
    # Until the override is over
    assert apply(three, later(601)).calls_ended == 2


def test_suspension_with_an_overridden_freeze_ends_no_calls(three):
    report_subscription(three.database, subscription_of(three), closing=True, now=later(1))
    override(three.database, three.id, later(600), "subscription_inactive", later(2))
    refresh_subscription(three.database, subscription_of(three), three.id, "cancelled", later(3))
    assert causes(three) == [None, None, None]


def test_enforcement_applied_many_times_at_once_ends_calls_once(three):
    three.freeze()
    results = at_once([with_retries(lambda: apply(three))] * 8)
    assert sum(one.calls_ended for one in results) == 2
    assert three.jobs("end_call") == ["c1", "c2"]
