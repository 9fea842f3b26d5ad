"""The rule of automatic top-up: what it allows, what it postpones and until when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.top_ups.rule import (
    BACK_OFF_FIRST,
    BACK_OFF_LONGEST,
    DAY,
    DECISION_LIFE,
    GAP,
    RECHECK,
    Enough,
    Past,
    State,
    TopUpCharge,
    TopUpTerms,
    Wait,
    Why,
    back_off_ends,
    decide_top_up,
)
from tests.domain.support import T0

TERMS = TopUpTerms(below_micros=50, amount_micros=100, day_cap_micros=250, day_cap_count=3)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


def past(state, ago, micros=100, **more):
    """Make a decision of so long ago; if it has ended, it did so a minute later."""
    decided_at = T0 - ago
    ended_at = None if state is State.DECIDED else decided_at + timedelta(minutes=1)
    return Past(state, micros, decided_at, decided_at + DECISION_LIFE, ended_at, **more)


def rule(*before, available=0, terms=TERMS, now=T0, hindrance=None):
    return decide_top_up(terms, available, before, now, hindrance=hindrance)


def test_top_up_is_charged_below_the_level_and_not_at_it():
    assert rule(available=49) == TopUpCharge(100)
    assert rule(available=50) == Enough()
    assert rule(available=-7) == TopUpCharge(100)


@pytest.mark.parametrize("why", [Why.FROZEN, Why.CANNOT_CHARGE])
def test_hindrance_is_checked_again_later(why):
    assert rule(hindrance=why) == Wait(T0 + RECHECK, why)
    assert rule(hindrance=why, available=50) == Enough()


def test_while_a_decision_is_pending_there_is_no_other():
    waiting = past(State.DECIDED, timedelta(minutes=5))
    assert rule(waiting) == Wait(waiting.expires_at, Why.PENDING)
    # A decision that is being charged ends only when the provider responds.
    begun = past(State.DECIDED, timedelta(days=3), charging=True)
    assert rule(begun) == Wait(T0 + RECHECK, Why.PENDING)


@pytest.mark.parametrize("state", [State.CHARGED, State.EXPIRED])
def test_two_decisions_are_a_gap_apart(state):
    before = past(state, GAP - TICK)
    assert rule(before) == Wait(T0 + TICK, Why.BURST)
    assert rule(past(state, GAP)) == TopUpCharge(100)


@pytest.mark.parametrize(
    ("declines", "hours"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 24), (7, 24), (250, 24)]
)
def test_the_wait_after_declines_doubles_from_an_hour_to_a_day(declines, hours):
    before = [past(State.DECLINED, DAY * n + 2 * GAP) for n in range(declines)]
    assert back_off_ends(before) == before[0].ended_at + timedelta(hours=hours)
    end = before[0].ended_at + timedelta(hours=hours)
    assert rule(*before, now=end - TICK) == Wait(end, Why.BACK_OFF)
    assert rule(*before, now=end) == TopUpCharge(100)


def test_a_success_resets_the_back_off_and_an_expired_decision_does_not():
    two = [past(State.DECLINED, 3 * HOUR), past(State.DECLINED, 9 * HOUR)]
    assert rule(*two, past(State.CHARGED, 5 * HOUR)) == TopUpCharge(100)
    assert back_off_ends([*two, past(State.CHARGED, 2 * HOUR)]) is None
    soon = [past(State.DECLINED, HOUR), past(State.EXPIRED, 30 * GAP), past(State.DECLINED, DAY)]
    assert rule(*soon) == Wait(soon[0].ended_at + 2 * HOUR, Why.BACK_OFF)


def test_the_cap_in_money_is_used_to_its_exact_limit():
    # Given 150 of 250 in the last 24 hours: exactly 100 more fit
    assert rule(past(State.CHARGED, HOUR, 150)) == TopUpCharge(100)
    one = past(State.CHARGED, HOUR, 151)
    assert rule(one) == Wait(one.decided_at + DAY, Why.DAY_CAP)


def test_the_cap_in_number_is_used_to_its_exact_limit():
    terms = replace(TERMS, day_cap_micros=10**9)
    two = [past(State.CHARGED, n * HOUR) for n in (1, 2)]
    assert rule(*two, terms=terms) == TopUpCharge(100)
    third = past(State.CHARGED, 3 * HOUR)
    assert rule(*two, third, terms=terms) == Wait(third.decided_at + DAY, Why.DAY_CAP)


def test_charge_a_day_old_does_not_count_and_a_younger_one_does():
    old = past(State.CHARGED, DAY, 250)
    assert rule(old) == TopUpCharge(100)
    assert rule(past(State.CHARGED, DAY - TICK, 250)) == Wait(T0 + TICK, Why.DAY_CAP)


def test_declined_and_expired_decisions_do_not_count_for_the_cap():
    before = [past(State.EXPIRED, n * HOUR, 10**6) for n in range(2, 9)]
    declined = past(State.DECLINED, 12 * HOUR, 10**6)
    assert rule(*before, declined) == TopUpCharge(100)


def test_top_up_waits_until_enough_charges_are_a_day_old():
    # Given 240 in three charges, of which the oldest two must be a day old before 100 fit
    before = [past(State.CHARGED, n * HOUR, 80) for n in (1, 5, 9)]
    assert rule(*before) == Wait(before[1].decided_at + DAY, Why.DAY_CAP)
    # When one charge was captured above the cap itself
    much = past(State.CHARGED, HOUR, 10**6)
    assert rule(much, *before) == Wait(much.decided_at + DAY, Why.DAY_CAP)


# Random histories: days of random results break none of the rule's promises.

_ANSWERS = st.sampled_from([State.CHARGED, State.CHARGED, State.DECLINED, State.EXPIRED])
_SECONDS = st.one_of(st.integers(0, 120), st.integers(0, 4 * 86_400))
_STEPS = st.lists(st.tuples(_SECONDS, _ANSWERS, st.booleans(), st.booleans()), max_size=60)
_TERMS = st.builds(
    lambda amount, more, count: TopUpTerms(50, amount, amount + more, count),
    st.integers(1, 1000),
    st.integers(0, 5000),
    st.integers(1, 6),
)


@settings(max_examples=300, deadline=None)
@given(_TERMS, _STEPS)
def test_random_histories_respect_every_limit(terms, steps):
    """Find exceeded caps, two pending decisions, bursts, early retries, endless waits."""
    history: list[Past] = []
    now = T0
    for seconds, answer, answered, waits in steps:
        now += timedelta(seconds=seconds)
        verdict = decide_top_up(terms, 0, history, now)
        if isinstance(verdict, Wait):
            assert now < verdict.until <= now + DAY
            if not waits:
                continue
            # After the wait that reason is gone. Another reason may follow, but not forever.
            now = verdict.until
            for _ in range(5):
                history = _expired(history, now)
                verdict = decide_top_up(terms, 0, history, now)
                if isinstance(verdict, TopUpCharge):
                    break
                assert isinstance(verdict, Wait)
                now = verdict.until
        assert isinstance(verdict, TopUpCharge)
        _check_promises(terms, history, now)
        history = _expired(history, now)
        made = Past(State.DECIDED, verdict.micros, now, now + DECISION_LIFE)
        if answered:
            made = replace(made, state=answer, ended_at=now + timedelta(seconds=1))
        history.append(made)


def _expired(history: list[Past], now) -> list[Past]:
    return [
        replace(one, state=State.EXPIRED, ended_at=now)
        if one.state is State.DECIDED and one.expires_at <= now
        else one
        for one in history
    ]


def _check_promises(terms: TopUpTerms, history: list[Past], now) -> None:
    """Check what must be true of a charge that was just allowed."""
    counted = [
        one
        for one in history
        if one.state in (State.DECIDED, State.CHARGED) and one.decided_at > now - DAY
    ]
    assert sum(one.micros for one in counted) + terms.amount_micros <= terms.day_cap_micros
    assert len(counted) + 1 <= terms.day_cap_count
    assert not [one for one in history if one.state is State.DECIDED and one.expires_at > now]
    assert all(now - one.decided_at >= GAP for one in history)
    ended = [one for one in history if one.state in (State.CHARGED, State.DECLINED)]
    in_a_row = 0
    for one in reversed(ended):
        if one.state is State.CHARGED:
            break
        in_a_row += 1
    if in_a_row:
        wait = min(BACK_OFF_FIRST * 2 ** min(in_a_row - 1, 9), BACK_OFF_LONGEST)
        assert now - ended[-1].ended_at >= wait
