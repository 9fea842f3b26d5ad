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


def due(customer, now):
    return customer.id in customer.do(lambda session: due_organizations(session, now, 1_000))


def rest(customer, call_id):
    """Return how many seconds after T0 a call's next tick is due."""
    at = customer.call(call_id).tick_at
    return None if at is None else (at - T0).total_seconds()


def dial(customer, call_id, now=T0, *, seconds=50):
    """Begin a call without a maximum duration."""
    customer.reserve(call_id, seconds=seconds, now=now)
    customer.report_status(customer.call(call_id), "in_progress", now)
    return call_id


# One call


def test_call_is_ticked_only_when_its_hold_is_nearly_used_up(customer):
    # Given a call with a hold for a step of a minute
    call_id = customer.admit_call()
    assert due(customer, T0)
    assert customer.tick(T0) == TickResult()
    assert rest(customer, call_id) == 60 - MUST_SECONDS
    assert not due(customer, later(52.9))
    # When it is due, it gets what is left of the next step: forty seconds
    assert due(customer, later(53))
    assert customer.tick(later(53)) == TickResult(extended=1)
    assert customer.hold(call_id).reserved_micros == 100 * CENT
    assert customer.cents() == (100, 100, 0)
    # And then it ends, with cover left for the time that ending takes
    assert customer.tick(later(93)) == TickResult(ended=1)
    call = customer.call(call_id)
    assert (call.end_cause, call.end_decided_at, call.tick_at) == (
        "insufficient_funds",
        later(93),
        None,
    )
    assert customer.jobs("end_call") == [call_id]
    assert customer.timeline(call_id) == ["reserved", "end_decided"]
    assert not due(customer, later(10_000))


def test_tick_without_due_calls_changes_nothing(customer):
    call_id = customer.admit_call()
    customer.tick(T0)
    seen = (customer.cents(), customer.hold(call_id).extensions, rest(customer, call_id))
    for seconds in (0, 20, 52.9):
        assert customer.tick(later(seconds)) == TickResult()
    assert (customer.cents(), customer.hold(call_id).extensions, rest(customer, call_id)) == seen


def test_the_hold_of_a_call_that_is_extended_ends_later(customer):
    customer.pay(1_000)
    call_id = customer.admit_call()
    assert customer.hold(call_id).expires_at == later(960)
    customer.tick(later(53))
    assert customer.hold(call_id).expires_at == later(53 + 960)
    assert customer.hold(call_id).extensions == 1


def test_call_billed_by_minutes_gets_the_next_minute_before_it_begins(customer):
    customer.pay(1_000)
    customer.rate(Rate(60 * CENT, 60))
    call_id = customer.admit_call()
    customer.tick(T0)
    customer.tick(later(53))
    assert customer.hold(call_id).reserved_micros == 120 * CENT
    assert rest(customer, call_id) == 120 - MUST_SECONDS


def test_call_is_warned_once_before_it_is_ended(customer):
    customer.terms(warn_before_seconds=20)
    call_id = customer.admit_call()
    # Given ticks at shrinking intervals before the warning, which is due 20 s before the end at 93
    # s
    now, warned = 0.0, []
    while (now := rest(customer, call_id)) is not None:
        if customer.tick(later(now)).warned:
            warned.append(now)
    assert len(warned) == 1
    assert 73 <= warned[0] < 74
    assert customer.jobs("warn_call") == [call_id]
    assert customer.call(call_id).end_decided_at == later(93)
    assert customer.timeline(call_id) == ["reserved", "warned", "end_decided"]


def test_call_that_was_warned_and_paid_for_is_not_warned_again(customer):
    customer.terms(warn_before_seconds=20)
    call_id = customer.admit_call()
    customer.tick(later(53))
    assert customer.tick(later(80)) == TickResult(warned=1)
    customer.pay(60)
    assert customer.tick(later(93)) == TickResult(extended=1)
    customer.tick(later(rest(customer, call_id)))
    assert customer.jobs("warn_call") == [call_id]


# Reasons to end


def test_a_frozen_wallet_gives_nothing_more_and_ends_calls_for_that(customer):
    customer.pay(1_000)
    call_id = customer.admit_call()
    customer.freeze(later(10))
    assert customer.tick(later(53)) == TickResult(ended=1)
    assert customer.call(call_id).end_cause == "frozen_wallet"
    assert customer.hold(call_id).extensions == 0


def test_overridden_freeze_does_not_end_calls(customer, shared):
    customer.pay(1_000)
    call_id = customer.admit_call()
    customer.freeze(later(10))
    override(shared, customer.id, later(100))
    assert customer.tick(later(53)) == TickResult(extended=1)
    assert customer.tick(later(113)) == TickResult(ended=1)
    assert customer.call(call_id).end_cause == "frozen_wallet"


def test_call_without_a_hold_ends(customer):
    call_id = customer.admit_call()
    release(customer.database, customer.id, call_id)
    assert customer.tick(T0) == TickResult(ended=1)
    assert customer.call(call_id).end_cause == "insufficient_funds"


def test_the_dearest_call_is_held_for_until_its_maximum_and_no_longer(customer):
    # Given the most expensive call, of an hour at most, and more money than one hold may have
    customer.pay(10**11)
    customer.pay(10**11)
    customer.rate(Rate(RATE_MICROS_MAX, 60))
    customer.terms(warn_before_seconds=0, step_seconds=3_600)
    call_id = customer.admit_call()
    now = 0.0
    while (now := rest(customer, call_id)) is not None:
        done = customer.tick(later(now))
    assert done.ended == 1
    assert customer.hold(call_id).reserved_micros == 61 * RATE_MICROS_MAX
    assert customer.call(call_id).end_cause == "max_duration"


def test_an_ending_call_is_neither_metered_nor_paid_for(customer):
    customer.pay(1_000)
    call_id = customer.admit_call()
    assert customer.decide(call_id, later(1))
    other = customer.admit_call()
    assert customer.tick(later(100)) == TickResult(extended=1)
    assert customer.hold(call_id).extensions == 0
    assert customer.hold(other).extensions == 1


# Several calls


def test_calls_share_the_rest_and_end_together(customer):
    # Given three calls whose holds leave money for ten seconds
    customer.pay(90)
    calls = [customer.admit_call() for _ in range(3)]
    assert customer.cents() == (190, 180, 0)
    assert customer.tick(later(53)) == TickResult(extended=3)
    assert [customer.hold(one).reserved_micros // CENT for one in calls] == [63, 63, 64]
    # The last call got the remaining second
    assert customer.tick(later(56)) == TickResult(ended=2)
    assert customer.tick(later(57)) == TickResult(ended=1)


def test_the_debt_limit_is_used_by_several_and_never_passed(customer):
    # Given no money left, and a minute's debt limit for two calls with 50 s each
    customer.debt(60)
    customer.terms(warn_before_seconds=0, step_seconds=50)
    first, second = dial(customer, "c1"), dial(customer, "c2")
    assert customer.cents() == (100, 100, 0)
    assert customer.tick(later(43)) == TickResult()
    lent = [customer.call(one).debt_micros // CENT for one in (first, second)]
    assert lent == [30, 30]
    assert customer.tick(later(73)) == TickResult(ended=2)
    # When both use all that they got
    for one in (first, second):
        customer.report(customer.call(one), 80, later(81))
    # Then the balance is negative by exactly the limit, and there is no outstanding amount
    assert customer.cents() == (-60, 0, 0)


def test_debt_limit_lent_to_one_call_is_not_lent_to_another(customer):
    customer.debt(30)
    customer.terms(warn_before_seconds=0, step_seconds=50)
    first, second = dial(customer, "c1"), dial(customer, "c2", later(20))
    customer.tick(later(43))
    assert customer.call(first).debt_micros == 15 * CENT
    # When both are ticked until they end
    for one in (first, second):
        while (now := rest(customer, one)) is not None:
            customer.tick(later(now))
    # Then the whole limit was lent, and only once
    assert sum(customer.call(one).debt_micros for one in (first, second)) == 30 * CENT


def test_debt_already_used_is_not_lent_again(customer):
    # Given two calls that hold all money, one of which used the debt limit and is over
    customer.debt(60)
    customer.terms(warn_before_seconds=0, step_seconds=50)
    first, second = dial(customer, "c1"), dial(customer, "c2", later(40))
    customer.tick(later(43))
    customer.report(customer.call(first), 80, later(80))
    assert customer.cents() == (20, 50, 0)
    # When the other needs more
    customer.tick(later(83))
    # Then it gets only the rest of the limit, which is never exceeded
    assert customer.call(second).debt_micros == 30 * CENT
    customer.report(customer.call(second), 80, later(120))
    assert customer.cents() == (-60, 0, 0)


def test_whole_debt_limit_is_available_again_after_a_payment(customer):
    customer.debt(60)
    customer.terms(warn_before_seconds=0, step_seconds=100)
    first = dial(customer, "c1", seconds=100)
    customer.tick(later(93))
    assert customer.call(first).debt_micros == 60 * CENT
    customer.report(customer.call(first), 120, later(120))
    assert customer.cents() == (-20, 0, 0)
    # When there is money again
    customer.pay(70)
    second = dial(customer, "c2", later(200))
    customer.tick(later(243))
    # Then the whole limit is available again, because the payment first covered the debt
    assert customer.hold(second).reserved_micros == 50 * CENT
    assert customer.call(second).debt_micros == 60 * CENT


# Calls that do not talk yet


def test_call_that_does_not_talk_yet_is_refreshed_and_not_metered(customer):
    customer.reserve("c1")
    assert customer.call().metered_from is None
    assert not due(customer, later(29.9))
    assert customer.tick(later(30)) == TickResult(refreshed=1)
    assert (customer.jobs("look_at_call"), rest(customer, "c1")) == (["c1"], 60)
    assert customer.tick(later(30)) == TickResult()
    assert customer.hold().extensions == 0
    # Not even when its hold would be used up if it talked
    assert customer.tick(later(600)) == TickResult(refreshed=1)
    assert customer.call().end_cause is None


def test_call_without_a_provider_id_is_waited_for(customer):
    customer.reserve("c1", provider=None)
    assert customer.tick(later(30)) == TickResult()
    assert (customer.jobs("look_at_call"), rest(customer, "c1")) == ([], 60)


def test_wallets_are_ticked_the_longest_due_first_and_bounded(customer, shared):
    customer.admit_call()
    execute(
        shared,
        "UPDATE calls SET tick_at = :at WHERE organization_id = :org",
        org=customer.id,
        at=later(-10_000),
    )
    assert customer.do(lambda session: ticks.due_organizations(session, T0, 1)) == [customer.id]
