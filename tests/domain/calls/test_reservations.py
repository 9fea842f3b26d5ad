"""Reservations of outgoing calls by the company's backend: one hold per call."""

from __future__ import annotations

import pytest

from db.models import Subscription
from domain.calls.rates import Rate, remove_rate
from domain.calls.reservations import reserve_for_call
from tests.db.support import at_once, one_behind_the_other, patiently
from tests.domain.calls.support import CENT, Line
from tests.domain.support import ANN, T0, later, refresh_subscription
from tests.domain.wallet.hold_support import everything, expire
from tests.domain.wallet.support import bare_organization
from tests.support.world import make_organization


def code(reserved):
    return "replay" if reserved.outcome.replayed else reserved.outcome.outcome


def named(line, mark="v"):
    return f"{mark}-{line.id}"[:64]


def test_reservation_holds_the_estimated_cost_and_is_not_metered_yet(line):
    reserved = line.reserve(seconds=30, number="+442012345678", appointment_id="app-1")
    assert (code(reserved), line.cents()) == ("OK", (100, 30, 0))
    call = line.call()
    assert (call.status, call.direction, call.their_party) == ("admitted", "outbound", "…5678")
    assert (call.appointment_id, call.metered_from) == ("app-1", None)
    assert call.max_duration_seconds is None
    assert call.tick_at == later(30)
    assert line.hold().expires_at == later(30 + 900)


def test_the_rate_is_that_of_the_number_that_is_called(line):
    line.rate(Rate(90 * CENT, 60), "outbound:+44")
    line.reserve(seconds=10, number="+442012345678")
    assert line.call().micros_per_minute == 90 * CENT
    assert line.cents() == (100, 90, 0)


@pytest.mark.parametrize(
    ("seconds", "answer"),
    [
        (0, "INVALID_DURATION"),
        (-1, "INVALID_DURATION"),
        (43_201, "INVALID_DURATION"),
        (1, "OK"),
        (100, "OK"),
        (101, "INSUFFICIENT_FUNDS"),
        (43_200, "INSUFFICIENT_FUNDS"),
    ],
)
def test_the_exact_limits_of_an_estimate(line, seconds, answer):
    before = everything(line.database, line.id)
    reserved = line.reserve(seconds=seconds)
    assert code(reserved) == answer
    if answer != "OK":
        assert (reserved.call, line.calls()) == (None, [])
        assert everything(line.database, line.id) == before


def test_reserving_is_refused_while_the_wallet_is_frozen(line):
    line.freeze()
    before = everything(line.database, line.id)
    assert code(line.reserve()) == "FROZEN_WALLET"
    # Also without a rate: the freeze is reported first
    line.do(lambda s: remove_rate(s, line.id, "default", operator=ANN, now=T0))
    assert code(line.reserve()) == "FROZEN_WALLET"
    assert (line.calls(), everything(line.database, line.id)) == ([], before)


def test_reserving_is_refused_while_the_subscription_is_inactive(shared, org):
    # Given an organization with money and a rate, whose subscription is suspended
    line = Line(shared, org)
    (one,) = line.do(lambda s: s.query(Subscription).filter_by(organization_id=org).all())
    refresh_subscription(shared, one.external_id, org, "suspended")
    before = everything(shared, org)
    assert code(line.reserve()) == "SUBSCRIPTION_INACTIVE"
    assert (line.calls(), everything(shared, org)) == ([], before)


def test_reserving_is_refused_without_a_rate(line):
    line.do(lambda s: remove_rate(s, line.id, "default", operator=ANN, now=T0))
    before = everything(line.database, line.id)
    assert code(line.reserve()) == "NO_RATE"
    assert (line.calls(), everything(line.database, line.id)) == ([], before)


def test_reserving_is_refused_without_a_wallet(line):
    line.id = bare_organization(line.database)
    assert code(line.reserve()) == "WALLET_NOT_FOUND"
    assert (line.calls(), line.hold()) == ([], None)


@pytest.mark.parametrize("call_id", ["", "x" * 65])
def test_an_id_that_cannot_be_kept_is_refused(line, call_id):
    assert code(line.reserve(call_id)) == "INVALID_CALL"
    assert line.calls() == []


# Replays


def test_reservation_is_replayed_with_any_parameters_while_hold_is_open(line):
    line.reserve(seconds=30, provider=named(line))
    assert code(line.reserve(seconds=90, provider=named(line))) == "replay"
    line.freeze()
    assert code(line.reserve(seconds=1, provider=None)) == "replay"
    assert line.cents() == (100, 30, 0)
    assert len(line.calls()) == 1


@pytest.mark.parametrize("ending", ["report", "no cost", "expired"])
def test_reserving_a_call_that_is_over_is_refused_as_settled(line, ending):
    line.reserve(seconds=30)
    if ending == "expired":
        expire(line.database, line.id, now=later(930))
    else:
        line.report(line.call(), 5 if ending == "report" else 0, later(20))
    again = line.reserve(seconds=30, provider=line.call().provider_call_id, now=later(940))
    assert code(again) == "CALL_SETTLED"
    assert line.cents()[1] == 0


def test_free_call_without_a_hold_is_not_reserved_for_afterwards(line):
    line.report(named(line), 0)
    (call,) = line.calls()
    assert call.settled_at is not None and line.hold(call.id) is None
    assert code(line.reserve(call.id, provider=None)) == "CALL_SETTLED"
    assert line.hold(call.id) is None


def test_providers_id_may_arrive_with_a_later_reservation(line):
    line.reserve(provider=None)
    assert line.call().provider_call_id is None
    assert code(line.reserve(provider=named(line))) == "replay"
    assert line.call().provider_call_id == named(line)


def test_a_call_and_a_providers_call_are_paired_once(line, shared):
    line.reserve("c1", provider=named(line))
    # Our call with another call of Vapi, and Vapi's call with another call of ours
    assert code(line.reserve("c1", provider=named(line, "w"))) == "IDEMPOTENCY_CONFLICT"
    assert code(line.reserve("c2", provider=named(line))) == "IDEMPOTENCY_CONFLICT"
    # Also a call that its own messages have paired
    line.reserve("c3", provider=None)
    line.hear(named(line, "x"), "queued", **line.metadata("c3"))
    assert code(line.reserve("c3", provider=named(line, "y"))) == "IDEMPOTENCY_CONFLICT"
    assert code(line.reserve("c3", provider=named(line, "x"))) == "replay"
    # And in another organization
    other = Line(shared, make_organization(shared))
    assert code(other.reserve("c1", provider=named(line))) == "IDEMPOTENCY_CONFLICT"
    assert (other.calls(), other.cents()[1]) == ([], 0)


def test_two_organizations_that_reserve_one_call_at_once_conflict(line, shared, shared_urls):
    # Given one reservation that is not committed yet, so that the other cannot see it
    other = Line(shared, make_organization(shared))
    wanted = named(line)

    def first(session):
        assert reserve_for_call(
            session,
            line.id,
            call_id="c1",
            provider_call_id=wanted,
            estimated_seconds=30,
            now=T0,
        ).outcome.ok

    answers = []

    def second():
        answers.append(code(other.reserve("c1", provider=wanted)))

    # When the other organization reserves, its insert waits, is refused and is run again
    one_behind_the_other(shared, shared_urls.owner_url, first, second)
    # Then it is a conflict, and nothing of it is kept
    assert answers == ["IDEMPOTENCY_CONFLICT"]
    assert (other.calls(), other.cents()) == ([], (100, 0, 0))
    assert line.cents() == (100, 30, 0)


def test_the_same_call_many_times_at_once_is_one_hold(line):
    wanted = named(line)
    results = at_once([patiently(lambda: line.reserve("c1", provider=wanted))] * 12)
    assert sorted(code(one) for one in results) == ["OK"] + ["replay"] * 11
    assert line.cents() == (100, 30, 0)
