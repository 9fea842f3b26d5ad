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
from tests.db.support import at_once, one_behind_the_other, patiently
from tests.domain.calls.support import CENT, RATE, Line, after
from tests.domain.support import ANN, T0, debit, later, report_subscription
from tests.domain.wallet.hold_support import everything
from tests.support.world import make_organization


def nothing_stays(line):
    """Check that there are only refusals: no hold, no price and no tick."""
    refused = all(
        (call.status, call.settled_by, call.cost_micros, call.tick_at)
        == ("refused",) * 2 + (0, None)
        for call in line.calls()
    )
    return refused and line.cents()[1] == 0


# Admitted


def test_admitted_call_holds_its_first_step_and_is_capped_by_available(line):
    made = line.admit()
    assert (made.refusal, made.assistant_id) == (None, line.assistant_id)
    assert made.max_duration_seconds == 100
    assert line.cents() == (100, 60, 0)
    call = line.call(made.call_id)
    assert (call.status, call.direction, call.fail_open) == ("admitted", "inbound", False)
    # The call is metered from its admission, and its first tick is due at once
    assert (call.metered_from, call.tick_at, call.created_at) == (T0, T0, T0)
    assert (call.micros_per_minute, call.increment_seconds) == (RATE.micros_per_minute, 1)
    assert (call.our_party, call.their_party) == ("…0099", "…0006")
    assert line.hold(made.call_id).provider_call_id == call.provider_call_id
    assert line.hold(made.call_id).expires_at == later(60 + 900)


@pytest.mark.parametrize(
    ("cents", "longest"), [(9, None), (9.99, None), (10, 10), (10.01, 10), (11, 11)]
)
def test_call_is_admitted_with_money_for_exactly_ten_seconds(shared, org, cents, longest):
    line = Line(shared, org, cents=0)
    line.pay(20)
    debit(shared, org, round((20 - cents) * CENT))
    made = line.admit()
    if longest is None:
        assert (made.refusal, nothing_stays(line)) == ("INSUFFICIENT_FUNDS", True)
    else:
        assert made.max_duration_seconds == longest
        # The hold is limited to available, although a step would be more
        assert line.hold(made.call_id).reserved_micros == longest * CENT


@pytest.mark.parametrize(("margin", "least"), [(5, 10), (7, 10), (8, 11), (20, 23), (60, 63)])
def test_call_is_refused_when_it_could_not_be_ended_in_time(shared, org, margin, least):
    # Given the margin within which a call ends after the order, and the tick's lead
    line = Line(shared, org, cents=least - 1)
    line.terms(margin_seconds=margin, warn_before_seconds=0)
    assert (line.admit().refusal, nothing_stays(line)) == ("INSUFFICIENT_FUNDS", True)
    line.pay(1)
    call_id = line.let_in()
    # And a call with exactly that amount ends a whole margin before its money does, however late
    # each tick runs
    while (call := line.call(call_id)).tick_at is not None:
        line.tick(after(call.tick_at, LEAD_SECONDS))
    assert call.end_decided_at <= later(least - margin)
    assert line.hold(call_id).reserved_micros == least * CENT


def test_cap_shorter_than_the_minimum_is_not_insufficient_funds(line):
    line.terms(margin_seconds=60, max_duration_seconds=10)
    assert line.admit().max_duration_seconds == 10


def test_whole_minutes_are_capped_at_whole_minutes(line):
    line.rate(Rate(60 * CENT, 60))
    assert line.admit().max_duration_seconds == 60
    assert line.cents() == (100, 60, 0)


def test_call_is_refused_when_its_minimum_cannot_be_paid(line):
    line.rate(Rate(60 * CENT, 1, 101 * CENT))
    assert line.admit().refusal == "INSUFFICIENT_FUNDS"
    line.rate(Rate(60 * CENT, 1, 100 * CENT))
    made = line.admit()
    assert (made.refusal, line.cents()) == (None, (100, 100, 0))


def test_money_held_by_others_is_not_available(line):
    assert line.admit().max_duration_seconds == 100
    assert line.admit().max_duration_seconds == 40
    assert line.admit().refusal == "INSUFFICIENT_FUNDS"
    assert line.cents() == (100, 100, 0)


def test_admission_does_not_use_the_debt_limit(line, shared):
    line.debt(1_000)
    debit(shared, line.id, 91 * CENT)
    assert line.admit().refusal == "INSUFFICIENT_FUNDS"


def test_terms_set_the_cap_and_the_first_step(line):
    line.pay(1_000_000)
    line.terms(max_duration_seconds=25, step_seconds=60)
    made = line.admit()
    assert made.max_duration_seconds == 25
    assert line.hold(made.call_id).reserved_micros == 25 * CENT
    line.terms(max_duration_seconds=43_200, step_seconds=8)
    made = line.admit()
    assert made.max_duration_seconds == 43_200
    assert line.hold(made.call_id).reserved_micros == 8 * CENT


def test_first_step_covers_at_least_the_lead_and_the_margin(line):
    line.terms(step_seconds=1, margin_seconds=20, warn_before_seconds=0)
    assert line.hold(line.let_in()).reserved_micros == 23 * CENT


def test_a_cap_within_an_increment_holds_the_whole_of_it(line):
    line.rate(Rate(60 * CENT, 60))
    line.terms(max_duration_seconds=20)
    made = line.admit()
    assert made.max_duration_seconds == 20
    assert line.hold(made.call_id).reserved_micros == 60 * CENT


# Refused


def frozen(line):
    line.freeze()


def reported(line):
    from db.models import Subscription

    (one,) = line.do(lambda s: s.query(Subscription).filter_by(organization_id=line.id).all())
    report_subscription(line.database, one.external_id, closing=True)


def without_rate(line):
    line.do(lambda s: remove_rate(s, line.id, "default", operator=ANN, now=T0))


def without_assistant(line):
    line.entry_point(EntryPointKind.PHONE_NUMBER, line.number_id)


def spent(line):
    debit(line.database, line.id, 100 * CENT)


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
def test_refused_call_gets_the_organizations_text_and_changes_nothing(line, spoil, code):
    line.terms(refusal_text="Please top up first.")
    spoil(line)
    before = everything(line.database, line.id)
    made = line.admit()
    assert (made.refusal, made.text) == (code, "Please top up first.")
    assert (made.organization_id, made.call_id) == (line.id, None)
    assert [call.refusal for call in line.calls()] == [code]
    assert everything(line.database, line.id) == before


def test_call_without_a_known_entry_point_is_refused_with_the_default_text(line):
    made = line.admit(phone_number_id="another", our_number=None)
    assert (made.refusal, made.organization_id) == ("UNKNOWN_ENTRY_POINT", None)
    assert made.text == Terms().refusal_text
    made = line.admit(phone_number_id=None, our_number=None)
    assert made.refusal == "UNKNOWN_ENTRY_POINT"
    assert nothing_stays(line)


# Which organization


def test_entry_points_of_two_organizations_refuse_the_call(line, shared):
    other = Line(shared, make_organization(shared))
    other.entry_point(EntryPointKind.ASSISTANT, other.assistant_id, assistant_id=other.assistant_id)
    made = line.admit(assistant_id=other.assistant_id)
    assert made.refusal == "UNKNOWN_ENTRY_POINT"
    assert nothing_stays(line) and nothing_stays(other)


def test_number_takes_precedence_and_an_unknown_assistant_is_ignored(line):
    line.entry_point(EntryPointKind.ASSISTANT, "of-the-door" + line.id[-8:], assistant_id="its-own")
    made = line.admit(assistant_id="of-the-door" + line.id[-8:])
    assert made.assistant_id == line.assistant_id
    assert line.admit(now=T0, assistant_id="nobodys").refusal is None
    made = line.admit(
        assistant_id="of-the-door" + line.id[-8:], phone_number_id=None, our_number=None
    )
    assert made.refusal == "INSUFFICIENT_FUNDS", "it was found, and the money is held by others"


def test_a_number_is_known_by_itself_as_well_as_by_its_id(line):
    number = f"+1{int(line.id[-6:], 36):012d}"[:15]
    line.entry_point(EntryPointKind.PHONE_NUMBER, number, assistant_id="other")
    made = line.admit(phone_number_id=None, our_number=number)
    assert made.assistant_id == "other"


def test_rate_is_that_of_the_called_number(line):
    line.rate(Rate(120 * CENT, 1), "inbound:+44")
    assert line.admit(our_number="+442012345678").max_duration_seconds == 50
    line.pay(100)
    assert line.admit(our_number="+15005550099").refusal is None
    assert [call.micros_per_minute // CENT for call in line.calls()] == [120, 60]


def test_a_rate_that_is_changed_holds_for_calls_that_begin_then(line):
    first = line.let_in()
    line.rate(Rate(180 * CENT, 6))
    second = line.let_in()
    line.report(line.call(first), 10)
    line.report(line.call(second), 7)
    assert [line.call(one).cost_micros // CENT for one in (first, second)] == [10, 36]


# Replays and concurrency


def test_reserved_call_is_admitted_within_its_hold_and_available(line):
    line.reserve("c1", seconds=40)
    made = line.admit(external_id=line.call().provider_call_id)
    assert (made.call_id, made.max_duration_seconds) == ("c1", 100)
    # And a replay gets the same answer, whatever is available by then
    line.pay(100)
    assert line.admit(external_id=line.call().provider_call_id) == made
    # But with money for less than ten seconds it is refused
    line.reserve("c2", seconds=9)
    debit(line.database, line.id, 151 * CENT)
    made = line.admit(external_id=line.call("c2").provider_call_id)
    assert (made.refusal, made.call_id) == ("INSUFFICIENT_FUNDS", "c2")


def test_live_call_gets_the_same_answer_again_whatever_is_available(line):
    first = line.admit(external_id=f"v-{line.id}"[:64])
    line.pay(1_000)
    assert line.admit(external_id=f"v-{line.id}"[:64], now=later(5)) == first
    line.freeze()
    assert line.admit(external_id=f"v-{line.id}"[:64], now=later(6)) == first
    assert len(line.calls()) == 1
    assert line.cents() == (1_100, 60, 0)


@pytest.mark.parametrize("ending", ["ended", "settled", "ending"])
def test_call_that_is_over_or_ending_is_not_admitted_again(line, ending):
    external_id = f"v-{line.id}"[:64]
    call_id = line.let_in(external_id=external_id)
    if ending == "ending":
        line.decide(call_id)
    elif ending == "ended":
        line.hear(external_id, "ended", later(1))
    else:
        line.report(external_id, 1, later(1))
    made = line.admit(external_id=external_id, now=later(2))
    assert (made.refusal, made.call_id) == ("CALL_SETTLED", call_id)
    assert len(line.calls()) == 1


def test_call_of_another_organization_is_not_admitted_by_our_number(line, shared):
    other = Line(shared, make_organization(shared))
    external_id = f"v-{line.id}"[:64]
    other.let_in(external_id=external_id)
    assert line.admit(external_id=external_id).refusal == "CALL_SETTLED"
    assert nothing_stays(line)


def test_the_same_call_many_times_at_once_is_one_call_and_one_hold(line):
    external_id = f"v-{line.id}"[:64]
    answers = at_once([patiently(lambda: line.admit(external_id=external_id))] * 12)
    assert all(one == answers[0] for one in answers)
    assert [one.is_new for one in answers].count(True) == 1
    assert len(line.calls()) == 1
    assert line.cents() == (100, 60, 0)


def test_concurrent_admissions_never_hold_more_than_available(line):
    answers = at_once([patiently(line.admit) for _ in range(12)])
    assert sorted(one.max_duration_seconds for one in answers if one.refusal is None) == [40, 100]
    assert line.cents() == (100, 100, 0)


def test_admission_behind_a_debit_is_capped_at_what_is_left(shared, shared_urls, line):
    from domain.wallet import operations as wallet

    def spend(session):
        assert wallet.debit(
            session, line.id, key="m", amount_micros=70 * CENT, currency="USD", now=T0
        ).ok

    made = one_behind_the_other(shared, shared_urls.owner_url, spend, line.admit)
    assert made.max_duration_seconds == 30


# Withdrawn


def test_admitted_call_is_withdrawn_once(line):
    call_id = line.let_in()
    answers = [line.do(lambda s: withdraw(s, line.id, call_id, later(3))) for _ in range(2)]
    assert answers == [True, False]
    assert line.cents() == (100, 0, 0)
    call = line.call(call_id)
    assert (call.settled_by, call.cost_micros, call.tick_at) == ("withdrawn", 0, None)
    assert line.hold(call_id).status == "released"


def test_call_that_has_begun_is_not_withdrawn(line):
    call_id = line.let_in()
    line.hear(line.call(call_id), "in_progress", later(2))
    assert not line.do(lambda s: withdraw(s, line.id, call_id, later(3)))
    assert line.cents() == (100, 60, 0)


def test_a_direction_that_has_no_rate_is_refused(line):
    without_rate(line)
    line.rate(RATE, "outbound")
    assert line.admit().refusal == "NO_RATE"
    line.rate(RATE, "web")
    assert line.admit(direction=CallDirection.WEB).refusal is None
