"""Charges of automatic top-up: charged once, declined, late, and daily caps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from base.enums import Provider
from base.outcomes import NotYet, Refused
from domain.top_ups.rule import DAY, DECISION_LIFE, GAP, RECHECK, Enough, TopUpCharge, Wait, Why
from tests.db.support import at_once
from tests.domain.support import T0, debit, entries, figures, later, payment, staged
from tests.domain.wallet.hold_support import settle
from tests.domain.wallet.level_support import (
    TERMS,
    alert_subjects,
    begin,
    charged,
    decide,
    decisions,
    declined,
    notice,
    open_alert_subjects,
    settings,
    states,
    switch_off,
    switch_on,
)
from tests.domain.wallet.support import freeze
from tests.support.world import make_organization


@pytest.fixture
def decided(shared, low):
    """The ID of a decision that waits for its charge."""
    decide(shared, low)
    return decisions(shared, low)[0].id


def newest(database, org):
    return decisions(database, org)[-1]


# The charge begins.


def test_charge_begins_once_and_is_returned_again_with_the_same_key(shared, low, decided):
    first = begin(shared, decided, later(5))
    again = begin(shared, decided, T0 + 2 * DECISION_LIFE)
    assert (first.charging_at, again.charging_at) == (later(5), later(5))
    assert first.idempotency_key == again.idempotency_key


def test_a_charge_does_not_begin_on_a_decision_that_is_outdated(shared, low, decided):
    refused = pytest.raises(Refused, match="DECISION_OUTDATED")
    with refused:
        begin(shared, decided, T0 + DECISION_LIFE)
    with refused:
        begin(shared, decided, chargeable=frozenset({Provider.STRIPE}))
    freeze(shared, low)
    with refused:
        begin(shared, decided)
    assert decisions(shared, low)[0].charging_at is None
    switch_off(shared, low)
    with refused:
        begin(shared, decided)
    with pytest.raises(Refused, match="DECISION_NOT_FOUND"):
        begin(shared, "top_none")


# Charged.


def test_charge_credits_and_ends_its_decision_in_one_commit(shared, low, decided):
    begin(shared, decided)
    charged(shared, low, decided, later(9), external_id="PAY-1")
    assert figures(shared, low) == (140, 0)
    one = newest(shared, low)
    assert (one.state, one.payment_external_id, one.charged_micros) == ("charged", "PAY-1", 100)
    assert one.ended_at == later(9)
    # The level is armed again, as after any top-up.
    assert notice(shared, low) == 50
    assert settings(shared, low).armed


def test_charge_reported_twice_or_at_once_is_credited_once(shared, low, decided):
    at_once([lambda: charged(shared, low, decided)] * 4)
    assert figures(shared, low) == (140, 0)
    assert [entry.kind for entry in entries(shared, low)].count("topup") == 1


def test_a_payment_that_the_webhook_has_settled_is_not_credited_again(shared, low, decided):
    settle(shared, low, 100)
    assert decide(shared, low, later(120)) == Enough()
    assert states(shared, low) == ["decided"]
    charged(shared, low, decided, external_id=f"P-{low}")
    assert (figures(shared, low), states(shared, low)) == ((140, 0), ["charged"])


def test_payment_that_does_not_match_the_decision_is_refused(shared, low, decided):
    other = make_organization(shared)
    cases = {
        "PAYMENT_MISMATCH: A": payment("A", other, 100),
        "PAYMENT_MISMATCH: B": replace(payment("B", low, 100), provider=Provider.STRIPE),
        "PAYMENT_MISMATCH: C": payment("C", low, 100, currency="EUR"),
    }
    for line, facts in cases.items():
        with pytest.raises(Refused, match=line):
            charged(shared, low, decided, facts=facts)
    with pytest.raises(NotYet, match="not captured"):
        charged(shared, low, decided, captured=0)
    assert (figures(shared, low), states(shared, low)) == ((40, 0), ["decided"])


def test_one_payment_ends_one_decision(shared, low, decided):
    charged(shared, low, decided, external_id="ONE")
    with pytest.raises(Refused, match="DECISION_CHARGED"):
        charged(shared, low, decided, external_id="TWO")
    debit(shared, low, 100)
    decide(shared, low, later(3600))
    with pytest.raises(Refused, match="PAYMENT_MISMATCH"):
        charged(shared, low, newest(shared, low).id, external_id="ONE")
    assert states(shared, low) == ["charged", "decided"]


def test_charge_for_an_expired_decision_is_credited_nevertheless(shared, low, decided):
    # Given a decision that expired, and another that waits
    assert decide(shared, low, T0 + DECISION_LIFE) == TopUpCharge(100)
    charged(shared, low, decided, T0 + DECISION_LIFE)
    assert (figures(shared, low), states(shared, low)) == ((140, 0), ["charged", "decided"])


def test_charge_that_does_not_reach_the_level_is_checked_again(shared, low):
    switch_on(shared, low, replace(TERMS, below_micros=500))
    decide(shared, low)
    before = len(staged(shared, low, "decide_top_up"))
    charged(shared, low, newest(shared, low).id, later(1))
    assert settings(shared, low).asks_at == later(1) + GAP
    assert len(staged(shared, low, "decide_top_up")) == before + 1
    assert decide(shared, low, later(1) + GAP) == TopUpCharge(100)


# Declined.


def test_decline_is_alerted_and_tried_again_after_the_back_off(shared, low, decided):
    begin(shared, decided)
    declined(shared, decided, later(30))
    assert (states(shared, low), figures(shared, low)) == (["declined"], (40, 0))
    assert newest(shared, low).decline_code == "card_declined"
    assert open_alert_subjects(shared, low, "top_up_declined") == ["paypal"]
    # The next check is due earlier and finds that it is too soon; another is due at the end of the
    # back-off.
    retry = later(30 + 3600)
    assert settings(shared, low).asks_at <= retry
    assert decide(shared, low, settings(shared, low).asks_at) == Wait(retry, Why.BACK_OFF)
    assert settings(shared, low).asks_at == retry
    assert decide(shared, low, retry - timedelta(microseconds=1)) == Wait(retry, Why.BACK_OFF)
    assert decide(shared, low, retry) == TopUpCharge(100)


def test_declines_in_a_row_double_the_wait_and_a_success_resets_it(shared, low):
    now = T0
    for hours in (1, 2, 4, 8, 16, 24, 24):
        assert decide(shared, low, now) == TopUpCharge(100)
        declined(shared, newest(shared, low).id, now)
        retry = now + timedelta(hours=hours)
        assert decide(shared, low, now + GAP) == Wait(retry, Why.BACK_OFF)
        now = retry
    assert alert_subjects(shared, low, kind="top_up_declined") == ["paypal"]
    assert decide(shared, low, now) == TopUpCharge(100)
    charged(shared, low, newest(shared, low).id, now)
    assert open_alert_subjects(shared, low, "top_up_declined") == []
    debit(shared, low, 100, now=now)
    assert decide(shared, low, now + GAP) == TopUpCharge(100)
    declined(shared, newest(shared, low).id, now + GAP)
    retry = now + GAP + timedelta(hours=1)
    assert decide(shared, low, now + 2 * GAP) == Wait(retry, Why.BACK_OFF)


def test_repeated_decline_changes_nothing_and_a_late_one_is_refused(shared, low, decided):
    declined(shared, decided, later(1), "first")
    declined(shared, decided, later(2), "second")
    assert (newest(shared, low).decline_code, newest(shared, low).ended_at) == ("first", later(1))
    # When the money arrives although the charge was recorded as declined
    charged(shared, low, decided, later(3))
    assert (figures(shared, low), states(shared, low)) == ((140, 0), ["charged"])
    with pytest.raises(Refused, match="DECISION_CHARGED"):
        declined(shared, decided, later(4))
    assert states(shared, low) == ["charged"]


def test_decline_code_is_kept_when_empty_or_too_long(shared, low, decided):
    declined(shared, decided, code="")
    assert newest(shared, low).decline_code == "declined"
    decide(shared, low, later(3600))
    declined(shared, newest(shared, low).id, later(3600), "x" * 900)
    assert newest(shared, low).decline_code == "x" * 200


def test_decline_after_switching_off_is_kept_and_stages_nothing(shared, low, decided):
    begin(shared, decided)
    switch_off(shared, low)
    before = len(staged(shared, low, "decide_top_up"))
    declined(shared, decided)
    assert states(shared, low) == ["declined"]
    assert len(staged(shared, low, "decide_top_up")) == before


def test_a_charge_that_began_before_other_terms_is_waited_for(shared, low, decided):
    begin(shared, decided)
    switch_on(shared, low, replace(TERMS, amount_micros=200), now=later(5))
    assert decide(shared, low, later(5)) == Wait(later(5) + RECHECK, Why.PENDING)


# The caps of a day.


def use_up(database, org, count):
    """TopUpCharge `count` times, an hour apart, and spend each 100 at once."""
    for n in range(count):
        now = T0 + n * timedelta(hours=1)
        assert decide(database, org, now) == TopUpCharge(100)
        charged(database, org, decisions(database, org)[-1].id, now + timedelta(seconds=1))
        debit(database, org, 100, now=now + timedelta(seconds=2))


def test_the_cap_in_money_holds_until_a_day_has_passed(shared, low):
    # Given two charges of 100, with a cap of 250 a day
    use_up(shared, low, 2)
    # When a third is needed
    end = T0 + DAY
    assert decide(shared, low, later(3 * 3600)) == Wait(end, Why.DAY_CAP)
    assert open_alert_subjects(shared, low, "top_up_capped") == ["paypal"]
    # Then it waits until the first is exactly a day old
    assert decide(shared, low, end - timedelta(microseconds=1)) == Wait(end, Why.DAY_CAP)
    assert decide(shared, low, end) == TopUpCharge(100)
    assert alert_subjects(shared, low, kind="top_up_capped") == ["paypal"]
    assert open_alert_subjects(shared, low, "top_up_capped") == []


def test_the_cap_in_money_is_used_to_its_exact_limit(shared, low):
    switch_on(shared, low, replace(TERMS, day_cap_micros=300), now=later(-10))
    use_up(shared, low, 3)
    assert decide(shared, low, later(4 * 3600)) == Wait(T0 + DAY, Why.DAY_CAP)


def test_the_cap_in_number_is_used_to_its_exact_limit(shared, low):
    switch_on(shared, low, replace(TERMS, day_cap_micros=10**6, day_cap_count=2))
    use_up(shared, low, 2)
    assert decide(shared, low, later(3 * 3600)) == Wait(T0 + DAY, Why.DAY_CAP)


def test_cap_counts_the_captured_and_not_the_requested_amount(shared, low):
    decide(shared, low)
    charged(shared, low, decisions(shared, low)[0].id, captured=151)
    debit(shared, low, 151)
    assert decide(shared, low, later(3600)) == Wait(T0 + DAY, Why.DAY_CAP)


def test_declined_charge_counts_against_no_cap(shared, low):
    switch_on(shared, low, replace(TERMS, day_cap_count=1))
    decide(shared, low)
    declined(shared, decisions(shared, low)[0].id)
    assert decide(shared, low, later(3600)) == TopUpCharge(100)


def test_crossings_in_a_burst_charge_once_a_gap(shared, low):
    # Given a charge that is spent at once
    use_up(shared, low, 1)
    assert settings(shared, low).crossings == 2
    for seconds in (3, 20, 59):
        assert decide(shared, low, later(seconds)) == Wait(T0 + GAP, Why.BURST)
    assert decide(shared, low, T0 + GAP) == TopUpCharge(100)
    assert decisions(shared, low)[1].idempotency_key == f"topup:{low}:2:1"
