"""Admission: which calls are accepted, with which hold and maximum duration.

A refused call leaves only its refusal.
"""

from __future__ import annotations

import pytest

from base.enums import CallDirection
from domain.calls.admission import withdraw
from domain.calls.entry_points import EntryPointKind
from domain.calls.metering import LEAD_SECONDS
from domain.calls.rates import Rate, remove_rate
from domain.calls.settings import Terms
from tests.db.support import at_once, one_behind_the_other, with_retries
from tests.domain.calls.support import CENT, RATE, CallCustomer, after
from tests.domain.support import ANN, T0, debit, later, report_subscription
from tests.domain.wallet.hold_support import everything
from tests.support.world import make_organization


def nothing_stays(customer):
    """Check that there are only refusals: no hold, no price and no tick."""
    refused = all(
        (call.status, call.settled_by, call.cost_micros, call.tick_at)
        == ("refused",) * 2 + (0, None)
        for call in customer.calls()
    )
    return refused and customer.cents()[1] == 0


# Admitted


def test_admitted_call_holds_its_first_step_and_is_capped_by_available(customer):
    made = customer.admit()
    assert (made.refusal, made.assistant_id) == (None, customer.assistant_id)
    assert made.max_duration_seconds == 100
    assert customer.cents() == (100, 60, 0)
    call = customer.call(made.call_id)
    assert (call.status, call.direction, call.fail_open) == ("admitted", "inbound", False)
    # The call is metered from its admission, and its first tick is due at once
    assert (call.metered_from, call.tick_at, call.created_at) == (T0, T0, T0)
    assert (call.micros_per_minute, call.increment_seconds) == (RATE.micros_per_minute, 1)
    assert (call.our_party, call.their_party) == ("…0099", "…0006")
    assert customer.hold(made.call_id).provider_call_id == call.provider_call_id
    assert customer.hold(made.call_id).expires_at == later(60 + 900)


@pytest.mark.parametrize(
    ("cents", "longest"), [(9, None), (9.99, None), (10, 10), (10.01, 10), (11, 11)]
)
def test_call_is_admitted_with_money_for_exactly_ten_seconds(shared, org, cents, longest):
    customer = CallCustomer(shared, org, cents=0)
    customer.pay(20)
    debit(shared, org, round((20 - cents) * CENT))
    made = customer.admit()
    if longest is None:
        assert (made.refusal, nothing_stays(customer)) == ("INSUFFICIENT_FUNDS", True)
    else:
        assert made.max_duration_seconds == longest
        # The hold is limited to available, although a step would be more
        assert customer.hold(made.call_id).reserved_micros == longest * CENT


@pytest.mark.parametrize(("margin", "least"), [(5, 10), (7, 10), (8, 11), (20, 23), (60, 63)])
def test_call_is_refused_when_it_could_not_be_ended_in_time(shared, org, margin, least):
    # Given the margin within which a call ends after the order, and the tick's lead
    customer = CallCustomer(shared, org, cents=least - 1)
    customer.terms(margin_seconds=margin, warn_before_seconds=0)
    assert (customer.admit().refusal, nothing_stays(customer)) == ("INSUFFICIENT_FUNDS", True)
    customer.pay(1)
    call_id = customer.admit_call()
    # And a call with exactly that amount ends a whole margin before its money does, however late
    # each tick runs
    while (call := customer.call(call_id)).tick_at is not None:
        customer.tick(after(call.tick_at, LEAD_SECONDS))
    assert call.end_decided_at <= later(least - margin)
    assert customer.hold(call_id).reserved_micros == least * CENT


def test_cap_shorter_than_the_minimum_is_not_insufficient_funds(customer):
    customer.terms(margin_seconds=60, max_duration_seconds=10)
    assert customer.admit().max_duration_seconds == 10


def test_whole_minutes_are_capped_at_whole_minutes(customer):
    customer.rate(Rate(60 * CENT, 60))
    assert customer.admit().max_duration_seconds == 60
    assert customer.cents() == (100, 60, 0)


def test_call_is_refused_when_its_minimum_cannot_be_paid(customer):
    customer.rate(Rate(60 * CENT, 1, 101 * CENT))
    assert customer.admit().refusal == "INSUFFICIENT_FUNDS"
    customer.rate(Rate(60 * CENT, 1, 100 * CENT))
    made = customer.admit()
    assert (made.refusal, customer.cents()) == (None, (100, 100, 0))


def test_money_held_by_others_is_not_available(customer):
    assert customer.admit().max_duration_seconds == 100
    assert customer.admit().max_duration_seconds == 40
    assert customer.admit().refusal == "INSUFFICIENT_FUNDS"
    assert customer.cents() == (100, 100, 0)


def test_admission_does_not_use_the_debt_limit(customer, shared):
    customer.debt(1_000)
    debit(shared, customer.id, 91 * CENT)
    assert customer.admit().refusal == "INSUFFICIENT_FUNDS"


def test_terms_set_the_cap_and_the_first_step(customer):
    customer.pay(1_000_000)
    customer.terms(max_duration_seconds=25, step_seconds=60)
    made = customer.admit()
    assert made.max_duration_seconds == 25
    assert customer.hold(made.call_id).reserved_micros == 25 * CENT
    customer.terms(max_duration_seconds=43_200, step_seconds=8)
    made = customer.admit()
    assert made.max_duration_seconds == 43_200
    assert customer.hold(made.call_id).reserved_micros == 8 * CENT


def test_first_step_covers_at_least_the_lead_and_the_margin(customer):
    customer.terms(step_seconds=1, margin_seconds=20, warn_before_seconds=0)
    assert customer.hold(customer.admit_call()).reserved_micros == 23 * CENT


def test_a_cap_within_an_increment_holds_the_whole_of_it(customer):
    customer.rate(Rate(60 * CENT, 60))
    customer.terms(max_duration_seconds=20)
    made = customer.admit()
    assert made.max_duration_seconds == 20
    assert customer.hold(made.call_id).reserved_micros == 60 * CENT


# Refused


def frozen(customer):
    customer.freeze()


def reported(customer):
    from db.models import Subscription

    (one,) = customer.do(
        lambda s: s.query(Subscription).filter_by(organization_id=customer.id).all()
    )
    report_subscription(customer.database, one.external_id, closing=True)


def without_rate(customer):
    customer.do(lambda s: remove_rate(s, customer.id, "default", operator=ANN, now=T0))


def without_assistant(customer):
    customer.entry_point(EntryPointKind.PHONE_NUMBER, customer.number_id)


def spent(customer):
    debit(customer.database, customer.id, 100 * CENT)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (frozen, "FROZEN_WALLET"),
        (reported, "SUBSCRIPTION_INACTIVE"),
        (without_rate, "NO_RATE"),
        (without_assistant, "NO_ASSISTANT"),
        (spent, "INSUFFICIENT_FUNDS"),
    ],
)
def test_refused_call_gets_the_organizations_text_and_changes_nothing(customer, spoil, code):
    customer.terms(refusal_text="Please top up first.")
    spoil(customer)
    before = everything(customer.database, customer.id)
    made = customer.admit()
    assert (made.refusal, made.text) == (code, "Please top up first.")
    assert (made.organization_id, made.call_id) == (customer.id, None)
    assert [call.refusal for call in customer.calls()] == [code]
    assert everything(customer.database, customer.id) == before


def test_call_without_a_known_entry_point_is_refused_with_the_default_text(customer):
    made = customer.admit(phone_number_id="another", our_number=None)
    assert (made.refusal, made.organization_id) == ("UNKNOWN_ENTRY_POINT", None)
    assert made.text == Terms().refusal_text
    made = customer.admit(phone_number_id=None, our_number=None)
    assert made.refusal == "UNKNOWN_ENTRY_POINT"
    assert nothing_stays(customer)


# Which organization


def test_entry_points_of_two_organizations_refuse_the_call(customer, shared):
    other = CallCustomer(shared, make_organization(shared))
    other.entry_point(EntryPointKind.ASSISTANT, other.assistant_id, assistant_id=other.assistant_id)
    made = customer.admit(assistant_id=other.assistant_id)
    assert made.refusal == "UNKNOWN_ENTRY_POINT"
    assert nothing_stays(customer) and nothing_stays(other)


def test_number_takes_precedence_and_an_unknown_assistant_is_ignored(customer):
    customer.entry_point(
        EntryPointKind.ASSISTANT, "of-the-door" + customer.id[-8:], assistant_id="its-own"
    )
    made = customer.admit(assistant_id="of-the-door" + customer.id[-8:])
    assert made.assistant_id == customer.assistant_id
    assert customer.admit(now=T0, assistant_id="nobodys").refusal is None
    made = customer.admit(
        assistant_id="of-the-door" + customer.id[-8:], phone_number_id=None, our_number=None
    )
    assert made.refusal == "INSUFFICIENT_FUNDS", "it was found, and the money is held by others"


def test_a_number_is_known_by_itself_as_well_as_by_its_id(customer):
    number = f"+1{int(customer.id[-6:], 36):012d}"[:15]
    customer.entry_point(EntryPointKind.PHONE_NUMBER, number, assistant_id="other")
    made = customer.admit(phone_number_id=None, our_number=number)
    assert made.assistant_id == "other"


def test_rate_is_that_of_the_called_number(customer):
    customer.rate(Rate(120 * CENT, 1), "inbound:+44")
    assert customer.admit(our_number="+442012345678").max_duration_seconds == 50
    customer.pay(100)
    assert customer.admit(our_number="+15005550099").refusal is None
    assert [call.micros_per_minute // CENT for call in customer.calls()] == [120, 60]


def test_a_rate_that_is_changed_holds_for_calls_that_begin_then(customer):
    first = customer.admit_call()
    customer.rate(Rate(180 * CENT, 6))
    second = customer.admit_call()
    customer.report(customer.call(first), 10)
    customer.report(customer.call(second), 7)
    assert [customer.call(one).cost_micros // CENT for one in (first, second)] == [10, 36]


# Replays and concurrency


def test_reserved_call_is_admitted_within_its_hold_and_available(customer):
    customer.reserve("c1", seconds=40)
    made = customer.admit(external_id=customer.call().provider_call_id)
    assert (made.call_id, made.max_duration_seconds) == ("c1", 100)
    # And a replay gets the same answer, whatever is available by then
    customer.pay(100)
    assert customer.admit(external_id=customer.call().provider_call_id) == made
    # But with money for less than ten seconds it is refused
    customer.reserve("c2", seconds=9)
    debit(customer.database, customer.id, 151 * CENT)
    made = customer.admit(external_id=customer.call("c2").provider_call_id)
    assert (made.refusal, made.call_id) == ("INSUFFICIENT_FUNDS", "c2")


def test_live_call_gets_the_same_answer_again_whatever_is_available(customer):
    first = customer.admit(external_id=f"v-{customer.id}"[:64])
    customer.pay(1_000)
    assert customer.admit(external_id=f"v-{customer.id}"[:64], now=later(5)) == first
    customer.freeze()
    assert customer.admit(external_id=f"v-{customer.id}"[:64], now=later(6)) == first
    assert len(customer.calls()) == 1
    assert customer.cents() == (1_100, 60, 0)


@pytest.mark.parametrize("ending", ["ended", "settled", "ending"])
def test_call_that_is_over_or_ending_is_not_admitted_again(customer, ending):
    external_id = f"v-{customer.id}"[:64]
    call_id = customer.admit_call(external_id=external_id)
    if ending == "ending":
        customer.decide(call_id)
    elif ending == "ended":
        customer.report_status(external_id, "ended", later(1))
    else:
        customer.report(external_id, 1, later(1))
    made = customer.admit(external_id=external_id, now=later(2))
    assert (made.refusal, made.call_id) == ("CALL_SETTLED", call_id)
    assert len(customer.calls()) == 1


def test_call_of_another_organization_is_not_admitted_by_our_number(customer, shared):
    other = CallCustomer(shared, make_organization(shared))
    external_id = f"v-{customer.id}"[:64]
    other.admit_call(external_id=external_id)
    assert customer.admit(external_id=external_id).refusal == "CALL_SETTLED"
    assert nothing_stays(customer)


def test_the_same_call_many_times_at_once_is_one_call_and_one_hold(customer):
    external_id = f"v-{customer.id}"[:64]
    answers = at_once([with_retries(lambda: customer.admit(external_id=external_id))] * 12)
    assert all(one == answers[0] for one in answers)
    assert [one.is_new for one in answers].count(True) == 1
    assert len(customer.calls()) == 1
    assert customer.cents() == (100, 60, 0)


def test_concurrent_admissions_never_hold_more_than_available(customer):
    answers = at_once([with_retries(customer.admit) for _ in range(12)])
    assert sorted(one.max_duration_seconds for one in answers if one.refusal is None) == [40, 100]
    assert customer.cents() == (100, 100, 0)


def test_admission_behind_a_debit_is_capped_at_what_is_left(shared, shared_urls, customer):
    from domain.wallet import operations as wallet

    def spend(session):
        assert wallet.debit(
            session, customer.id, key="m", amount_micros=70 * CENT, currency="USD", now=T0
        ).ok

    made = one_behind_the_other(shared, shared_urls.owner_url, spend, customer.admit)
    assert made.max_duration_seconds == 30


# Withdrawn


def test_admitted_call_is_withdrawn_once(customer):
    call_id = customer.admit_call()
    answers = [customer.do(lambda s: withdraw(s, customer.id, call_id, later(3))) for _ in range(2)]
    assert answers == [True, False]
    assert customer.cents() == (100, 0, 0)
    call = customer.call(call_id)
    assert (call.settled_by, call.cost_micros, call.tick_at) == ("withdrawn", 0, None)
    assert customer.hold(call_id).status == "released"


def test_call_that_has_begun_is_not_withdrawn(customer):
    call_id = customer.admit_call()
    customer.report_status(customer.call(call_id), "in_progress", later(2))
    assert not customer.do(lambda s: withdraw(s, customer.id, call_id, later(3)))
    assert customer.cents() == (100, 60, 0)


def test_a_direction_that_has_no_rate_is_refused(customer):
    without_rate(customer)
    customer.rate(RATE, "outbound")
    assert customer.admit().refusal == "NO_RATE"
    customer.rate(RATE, "web")
    assert customer.admit(direction=CallDirection.WEB).refusal is None
