"""The meter's rules: no call gets more than the wallet and the debt limit allow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.calls.metering import LEAD_SECONDS, Metered, share_out
from domain.calls.rates import INCREMENTS_SECONDS, Rate
from domain.calls.settings import Terms

CENT = 10_000
SECOND = Rate(60 * CENT, 1)
#: Steps of a minute, a margin of five seconds, and no warnings.
QUIET = Terms(warn_before_seconds=0)
#: A call must be extended or ended once it is covered for only so many more seconds.
MUST_SECONDS = QUIET.margin_seconds + LEAD_SECONDS

rates = st.builds(
    Rate,
    st.integers(1, 10**9),
    st.sampled_from(INCREMENTS_SECONDS),
    st.integers(0, 10**7),
)
meters = st.builds(
    Metered,
    st.uuids().map(str),
    rates,
    elapsed_seconds=st.floats(0, 50_000),
    hold_micros=st.integers(0, 10**10),
    debt_micros=st.integers(0, 10**8),
    warned=st.booleans(),
    can_extend=st.booleans(),
)
terms = st.builds(
    Terms,
    step_seconds=st.integers(1, 3_600),
    margin_seconds=st.integers(1, 60),
    warn_before_seconds=st.integers(0, 3_600),
)
pots = st.integers(-(10**9), 10**10)


def cent_call(elapsed_seconds: float, cents: int, **more) -> Metered:
    """Make a call at a cent per second with a hold of so many cents."""
    given = {"debt_micros": 0, "warned": False, **more}
    return Metered("c", SECOND, elapsed_seconds, cents * CENT, **given)


def share(calls, terms=QUIET, *, cents: float = 0, room: float = 0):
    share_out(
        calls, terms, available_micros=round(cents * CENT), debt_room_micros=round(room * CENT)
    )
    return calls


# For any calls and any available money


@given(calls=st.lists(meters, max_size=12), terms=terms, pot=pots, room=pots)
def test_calls_never_get_more_than_available(calls, terms, pot, room):
    before = [(one.hold_micros, one.debt_micros) for one in calls]
    share_out(calls, terms, available_micros=pot, debt_room_micros=room)
    assert sum(one.extend_micros for one in calls) <= max(0, pot)
    assert sum(one.borrow_micros for one in calls) <= max(0, room)
    for call, (hold, debt) in zip(calls, before, strict=True):
        assert call.extend_micros >= 0 and call.borrow_micros >= 0
        assert call.hold_micros == hold + call.extend_micros
        assert call.debt_micros == debt + call.borrow_micros
        assert call.can_extend or call.extend_micros == 0, "a hold that is not open was added to"


@given(calls=st.lists(meters, max_size=12), terms=terms, pot=pots, room=pots)
def test_call_that_goes_on_is_covered_past_its_margin_at_its_next_tick(calls, terms, pot, room):
    share_out(calls, terms, available_micros=pot, debt_room_micros=room)
    for call in calls:
        assert call.next_seconds >= 0
        if not call.end:
            left = call.left_seconds - call.next_seconds - LEAD_SECONDS
            assert left >= terms.margin_seconds - 1e-6


@given(calls=st.lists(meters, max_size=12), terms=terms, pot=pots, room=pots)
def test_call_is_not_ended_when_it_is_covered_or_could_be_alone(calls, terms, pot, room):
    alone = [replace(one) for one in calls]
    share_out(calls, terms, available_micros=pot, debt_room_micros=room)
    for call, by_itself in zip(calls, alone, strict=True):
        had_seconds = by_itself.left_seconds
        share_out([by_itself], terms, available_micros=pot, debt_room_micros=room)
        # A call at its maximum duration is ended whatever cover it has.
        if had_seconds > terms.margin_seconds + LEAD_SECONDS and not call.past_limit:
            assert not call.end
            assert (call.extend_micros, call.borrow_micros) == (0, 0)
        if by_itself.end:
            assert call.end, "with others it lives on what it could not pay for by itself"


@given(calls=st.lists(meters, max_size=12), terms=terms, pot=pots, room=pots)
def test_only_a_call_that_goes_on_and_was_not_warned_is_warned(calls, terms, pot, room):
    share_out(calls, terms, available_micros=pot, debt_room_micros=room)
    for call in calls:
        if call.warn:
            assert not call.warned and not call.end and terms.warn_before_seconds


@given(
    calls=st.lists(meters, min_size=2, max_size=8, unique_by=lambda one: one.left_seconds),
    terms=terms,
    pot=pots,
    room=pots,
    data=st.data(),
)
def test_order_of_the_calls_does_not_matter(calls, terms, pot, room, data):
    shuffled = data.draw(st.permutations([replace(one) for one in calls]))
    share_out(calls, terms, available_micros=pot, debt_room_micros=room)
    share_out(shuffled, terms, available_micros=pot, debt_room_micros=room)
    by_id = {one.call_id: one for one in shuffled}
    assert [by_id[one.call_id] for one in calls] == calls


# Steps


def test_a_call_is_extended_by_a_step_when_its_cover_is_nearly_used_up():
    (call,) = share([cent_call(60 - MUST_SECONDS, 60)], cents=1_000)
    assert (call.extend_micros, call.end) == (60 * CENT, False)
    assert call.next_seconds == 60


def test_call_is_not_extended_before_that():
    (call,) = share([cent_call(60 - MUST_SECONDS - 0.5, 60)], cents=1_000)
    assert (call.extend_micros, call.end, call.next_seconds) == (0, False, 0.5)


def test_a_step_is_counted_up_to_whole_increments():
    call = Metered("c", Rate(60 * CENT, 60), 55.0, 60 * CENT, 0, False)
    share([call], replace(QUIET, step_seconds=61), cents=1_000)
    assert call.extend_micros == 120 * CENT


def test_call_with_a_late_tick_catches_up_while_there_is_money():
    # Given five minutes without a tick, and a hold that covers one minute
    (call,) = share([cent_call(300, 60)], cents=1_000)
    assert not call.end
    assert call.covered_seconds > 300 + MUST_SECONDS
    # But without enough money it ends
    (call,) = share([cent_call(300, 60)], cents=200)
    assert call.end


def test_steps_that_are_shorter_than_the_margin_cover_it_all_the_same():
    (call,) = share([cent_call(0, 5)], replace(QUIET, step_seconds=5, margin_seconds=30), cents=90)
    assert not call.end
    assert call.left_seconds > 30 + LEAD_SECONDS


def test_call_ends_after_its_last_paid_increment():
    # Given money for one second, and a call that needs it
    (call,) = share([cent_call(60 - MUST_SECONDS, 60)], cents=1)
    assert (call.extend_micros, call.end, call.next_seconds) == (CENT, False, 1)
    # And once that second is used, nothing more
    (call,) = share([cent_call(61 - MUST_SECONDS, 61)], cents=0.99)
    assert (call.extend_micros, call.end) == (0, True)


def test_an_increment_that_cannot_be_paid_whole_is_not_given_in_part():
    rate = Rate(60 * CENT, 60)
    call = Metered("c", rate, 54.0, 60 * CENT, 0, False)
    share([call], cents=59.99)
    assert (call.extend_micros, call.end) == (0, True)
    call = Metered("c", rate, 54.0, 60 * CENT, 0, False)
    share([call], cents=60)
    assert (call.extend_micros, call.end) == (60 * CENT, False)


def test_a_minimum_is_paid_before_the_first_second():
    rate = Rate(60 * CENT, 1, minimum_micros=50 * CENT)
    # Given a hold below the minimum: it covers nothing
    call = Metered("c", rate, 0.0, 30 * CENT, 0, False)
    assert call.covered_seconds == 0
    share([call], cents=19.99)
    assert call.end
    call = Metered("c", rate, 0.0, 30 * CENT, 0, False)
    share([call], replace(QUIET, step_seconds=20), cents=20)
    assert (call.extend_micros, call.covered_seconds, call.end) == (20 * CENT, 50, False)


# Shares


def test_ten_calls_on_a_small_pot_all_get_the_same_share():
    calls = share([cent_call(60 - MUST_SECONDS, 60) for _ in range(10)], cents=100)
    assert [one.extend_micros for one in calls] == [10 * CENT] * 10
    assert not any(one.end for one in calls)


def test_call_nearest_to_its_end_is_served_first_when_money_is_short():
    calls = [cent_call(60 - MUST_SECONDS + late / 10, 60) for late in range(5)]
    share(calls, cents=3)
    # One second each for the last three in the list, which need it most
    assert [one.extend_micros // CENT for one in calls] == [0, 0, 1, 1, 1]
    assert [one.end for one in calls] == [True, True, False, False, False]


def test_well_covered_call_leaves_its_share_to_the_others():
    needs, has = share([cent_call(60 - MUST_SECONDS, 60), cent_call(0, 60)], cents=60)
    assert (needs.extend_micros, has.extend_micros) == (30 * CENT, 0)


def test_a_hold_that_is_not_open_gets_nothing_but_may_borrow():
    (call,) = share([cent_call(0, 0, can_extend=False)], cents=1_000)
    assert (call.extend_micros, call.end) == (0, True)
    (call,) = share([cent_call(0, 0, can_extend=False)], cents=1_000, room=60)
    assert (call.extend_micros, call.borrow_micros, call.end) == (0, 60 * CENT, False)


# The debt limit


def test_available_money_is_used_before_the_debt_limit():
    (call,) = share([cent_call(60 - MUST_SECONDS, 60)], cents=60, room=60)
    assert (call.extend_micros, call.borrow_micros) == (60 * CENT, 0)


def test_step_is_borrowed_when_nothing_is_available():
    (call,) = share([cent_call(60 - MUST_SECONDS, 60)], room=90)
    assert (call.extend_micros, call.borrow_micros, call.end) == (0, 60 * CENT, False)


def test_borrowed_credit_is_not_held_again():
    (call,) = share([cent_call(90 - MUST_SECONDS, 60, debt_micros=30 * CENT)], cents=60)
    assert (call.extend_micros, call.covered_seconds) == (60 * CENT, 150)


def test_calls_share_the_debt_limit():
    calls = share([cent_call(60 - MUST_SECONDS, 60) for _ in range(4)], room=100)
    assert [one.borrow_micros for one in calls] == [25 * CENT] * 4


# Warnings


def warned_at(left_in_all: float, *, warn=30, cents=0.0, **more) -> bool:
    call = cent_call(100 - left_in_all - MUST_SECONDS, 100, **more)
    share([call], replace(QUIET, warn_before_seconds=warn), cents=cents)
    return call.warn


def test_call_is_warned_so_many_seconds_before_its_end():
    assert not warned_at(30.1)
    assert warned_at(30)
    assert warned_at(0.1)


def test_no_warning_while_more_is_available_nor_twice_nor_when_disabled():
    assert not warned_at(10, cents=1_000)
    assert warned_at(10, cents=1_000, can_extend=False)
    assert not warned_at(10, warned=True)
    assert not warned_at(10, warn=0)


def test_call_that_waits_for_its_warning_is_ticked_in_time():
    # Given cover for 100 s, which may become less as other calls spend
    call = cent_call(0, 100)
    share([call], Terms(warn_before_seconds=60), cents=0)
    # 93 s until its end, 33 s until its warning: the next tick is after a quarter of the 33 s
    assert (call.warn, call.next_seconds) == (False, pytest.approx(33 / 4))
    call = cent_call(32.9, 100)
    share([call], Terms(warn_before_seconds=60))
    assert (call.warn, call.next_seconds) == (False, 1.0)
