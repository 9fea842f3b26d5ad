"""The tick on the real database: it extends, warns, ends and refreshes calls."""

from __future__ import annotations

from domain.calls import tick as ticks
from domain.calls.metering import LEAD_SECONDS
from domain.calls.rates import RATE_MICROS_MAX, Rate
from domain.calls.tick import TickResult, due_organizations
from tests.domain.calls.support import CENT, execute
from tests.domain.support import T0, later
from tests.domain.wallet.hold_support import release
from tests.domain.wallet.support import override

#: A call must be extended or ended once it is covered for only so many more seconds.
MUST_SECONDS = 5 + LEAD_SECONDS


def due(line, now):
    return line.id in line.do(lambda session: due_organizations(session, now, 1_000))


def rest(line, call_id):
    """Return how many seconds after T0 a call's next tick is due."""
    at = line.call(call_id).tick_at
    return None if at is None else (at - T0).total_seconds()


def dial(line, call_id, now=T0, *, seconds=50):
    """Begin a call without a maximum duration."""
    line.reserve(call_id, seconds=seconds, now=now)
    line.hear(line.call(call_id), "in_progress", now)
    return call_id


# One call


def test_call_is_ticked_only_when_its_hold_is_nearly_used_up(line):
    # Given a call with a hold for a step of a minute
    call_id = line.let_in()
    assert due(line, T0)
    assert line.tick(T0) == TickResult()
    assert rest(line, call_id) == 60 - MUST_SECONDS
    assert not due(line, later(52.9))
    # When it is due, it gets what is left of the next step: forty seconds
    assert due(line, later(53))
    assert line.tick(later(53)) == TickResult(extended=1)
    assert line.hold(call_id).reserved_micros == 100 * CENT
    assert line.cents() == (100, 100, 0)
    # And then it ends, with cover left for the time that ending takes
    assert line.tick(later(93)) == TickResult(ended=1)
    call = line.call(call_id)
    assert (call.end_cause, call.end_decided_at, call.tick_at) == (
        "insufficient_funds",
        later(93),
        None,
    )
    assert line.jobs("end_call") == [call_id]
    assert line.timeline(call_id) == ["reserved", "end_decided"]
    assert not due(line, later(10_000))


def test_tick_without_due_calls_changes_nothing(line):
    call_id = line.let_in()
    line.tick(T0)
    seen = (line.cents(), line.hold(call_id).extensions, rest(line, call_id))
    for seconds in (0, 20, 52.9):
        assert line.tick(later(seconds)) == TickResult()
    assert (line.cents(), line.hold(call_id).extensions, rest(line, call_id)) == seen


def test_the_hold_of_a_call_that_is_extended_ends_later(line):
    line.pay(1_000)
    call_id = line.let_in()
    assert line.hold(call_id).expires_at == later(960)
    line.tick(later(53))
    assert line.hold(call_id).expires_at == later(53 + 960)
    assert line.hold(call_id).extensions == 1


def test_call_billed_by_minutes_gets_the_next_minute_before_it_begins(line):
    line.pay(1_000)
    line.rate(Rate(60 * CENT, 60))
    call_id = line.let_in()
    line.tick(T0)
    line.tick(later(53))
    assert line.hold(call_id).reserved_micros == 120 * CENT
    assert rest(line, call_id) == 120 - MUST_SECONDS


def test_call_is_warned_once_before_it_is_ended(line):
    line.terms(warn_before_seconds=20)
    call_id = line.let_in()
    # Given ticks at shrinking intervals before the warning, which is due 20 s before the end at 93
    # s
    now, warned = 0.0, []
    while (now := rest(line, call_id)) is not None:
        if line.tick(later(now)).warned:
            warned.append(now)
    assert len(warned) == 1
    assert 73 <= warned[0] < 74
    assert line.jobs("warn_call") == [call_id]
    assert line.call(call_id).end_decided_at == later(93)
    assert line.timeline(call_id) == ["reserved", "warned", "end_decided"]


def test_call_that_was_warned_and_paid_for_is_not_warned_again(line):
    line.terms(warn_before_seconds=20)
    call_id = line.let_in()
    line.tick(later(53))
    assert line.tick(later(80)) == TickResult(warned=1)
    line.pay(60)
    assert line.tick(later(93)) == TickResult(extended=1)
    line.tick(later(rest(line, call_id)))
    assert line.jobs("warn_call") == [call_id]


# Reasons to end


def test_a_frozen_wallet_gives_nothing_more_and_ends_calls_for_that(line):
    line.pay(1_000)
    call_id = line.let_in()
    line.freeze(later(10))
    assert line.tick(later(53)) == TickResult(ended=1)
    assert line.call(call_id).end_cause == "frozen_wallet"
    assert line.hold(call_id).extensions == 0


def test_overridden_freeze_does_not_end_calls(line, shared):
    line.pay(1_000)
    call_id = line.let_in()
    line.freeze(later(10))
    override(shared, line.id, later(100))
    assert line.tick(later(53)) == TickResult(extended=1)
    assert line.tick(later(113)) == TickResult(ended=1)
    assert line.call(call_id).end_cause == "frozen_wallet"


def test_call_without_a_hold_ends(line):
    call_id = line.let_in()
    release(line.database, line.id, call_id)
    assert line.tick(T0) == TickResult(ended=1)
    assert line.call(call_id).end_cause == "insufficient_funds"


def test_the_dearest_call_is_held_for_until_its_maximum_and_no_longer(line):
    # Given the most expensive call, of an hour at most, and more money than one hold may have
    line.pay(10**11)
    line.pay(10**11)
    line.rate(Rate(RATE_MICROS_MAX, 60))
    line.terms(warn_before_seconds=0, step_seconds=3_600)
    call_id = line.let_in()
    now = 0.0
    while (now := rest(line, call_id)) is not None:
        done = line.tick(later(now))
    assert done.ended == 1
    assert line.hold(call_id).reserved_micros == 61 * RATE_MICROS_MAX
    assert line.call(call_id).end_cause == "max_duration"


def test_an_ending_call_is_neither_metered_nor_paid_for(line):
    line.pay(1_000)
    call_id = line.let_in()
    assert line.decide(call_id, later(1))
    other = line.let_in()
    assert line.tick(later(100)) == TickResult(extended=1)
    assert line.hold(call_id).extensions == 0
    assert line.hold(other).extensions == 1


# Several calls


def test_calls_share_the_rest_and_end_together(line):
    # Given three calls whose holds leave money for ten seconds
    line.pay(90)
    calls = [line.let_in() for _ in range(3)]
    assert line.cents() == (190, 180, 0)
    assert line.tick(later(53)) == TickResult(extended=3)
    assert [line.hold(one).reserved_micros // CENT for one in calls] == [63, 63, 64]
    # The last call got the remaining second
    assert line.tick(later(56)) == TickResult(ended=2)
    assert line.tick(later(57)) == TickResult(ended=1)


def test_the_debt_limit_is_used_by_several_and_never_passed(line):
    # Given no money left, and a minute's debt limit for two calls with 50 s each
    line.debt(60)
    line.terms(warn_before_seconds=0, step_seconds=50)
    first, second = dial(line, "c1"), dial(line, "c2")
    assert line.cents() == (100, 100, 0)
    assert line.tick(later(43)) == TickResult()
    lent = [line.call(one).debt_micros // CENT for one in (first, second)]
    assert lent == [30, 30]
    assert line.tick(later(73)) == TickResult(ended=2)
    # When both use all that they got
    for one in (first, second):
        line.report(line.call(one), 80, later(81))
    # Then the balance is negative by exactly the limit, and there is no outstanding amount
    assert line.cents() == (-60, 0, 0)


def test_debt_limit_lent_to_one_call_is_not_lent_to_another(line):
    line.debt(30)
    line.terms(warn_before_seconds=0, step_seconds=50)
    first, second = dial(line, "c1"), dial(line, "c2", later(20))
    line.tick(later(43))
    assert line.call(first).debt_micros == 15 * CENT
    # When both are ticked until they end
    for one in (first, second):
        while (now := rest(line, one)) is not None:
            line.tick(later(now))
    # Then the whole limit was lent, and only once
    assert sum(line.call(one).debt_micros for one in (first, second)) == 30 * CENT


def test_debt_already_used_is_not_lent_again(line):
    # Given two calls that hold all money, one of which used the debt limit and is over
    line.debt(60)
    line.terms(warn_before_seconds=0, step_seconds=50)
    first, second = dial(line, "c1"), dial(line, "c2", later(40))
    line.tick(later(43))
    line.report(line.call(first), 80, later(80))
    assert line.cents() == (20, 50, 0)
    # When the other needs more
    line.tick(later(83))
    # Then it gets only the rest of the limit, which is never exceeded
    assert line.call(second).debt_micros == 30 * CENT
    line.report(line.call(second), 80, later(120))
    assert line.cents() == (-60, 0, 0)


def test_whole_debt_limit_is_available_again_after_a_payment(line):
    line.debt(60)
    line.terms(warn_before_seconds=0, step_seconds=100)
    first = dial(line, "c1", seconds=100)
    line.tick(later(93))
    assert line.call(first).debt_micros == 60 * CENT
    line.report(line.call(first), 120, later(120))
    assert line.cents() == (-20, 0, 0)
    # When there is money again
    line.pay(70)
    second = dial(line, "c2", later(200))
    line.tick(later(243))
    # Then the whole limit is available again, because the payment first covered the debt
    assert line.hold(second).reserved_micros == 50 * CENT
    assert line.call(second).debt_micros == 60 * CENT


# Calls that do not talk yet


def test_call_that_does_not_talk_yet_is_refreshed_and_not_metered(line):
    line.reserve("c1")
    assert line.call().metered_from is None
    assert not due(line, later(29.9))
    assert line.tick(later(30)) == TickResult(asked=1)
    assert (line.jobs("look_at_call"), rest(line, "c1")) == (["c1"], 60)
    assert line.tick(later(30)) == TickResult()
    assert line.hold().extensions == 0
    # Not even when its hold would be used up if it talked
    assert line.tick(later(600)) == TickResult(asked=1)
    assert line.call().end_cause is None


def test_call_without_a_provider_id_is_waited_for(line):
    line.reserve("c1", provider=None)
    assert line.tick(later(30)) == TickResult()
    assert (line.jobs("look_at_call"), rest(line, "c1")) == ([], 60)


def test_wallets_are_ticked_the_longest_due_first_and_bounded(line, shared):
    line.let_in()
    execute(
        shared,
        "UPDATE calls SET tick_at = :at WHERE organization_id = :org",
        org=line.id,
        at=later(-10_000),
    )
    assert line.do(lambda session: ticks.due_organizations(session, T0, 1)) == [line.id]
