"""A call is priced by its number, whenever the provider names that number."""

from __future__ import annotations

import pytest

from base.operators import Operator
from base.outcomes import Refused
from domain.calls.entry_points import EntryPointKind
from domain.calls.rates import Rate, remove_rate
from domain.calls.tick import TickResult
from tests.domain.calls.support import CENT, CallCustomer, execute, unknown_alerts
from tests.domain.support import ANN, T0, later

UK = "+447700900123"
US = "+15005550123"
#: 0.12 a minute by default, 0.60 to British numbers.
DEAR = 600_000
CHEAP = 120_000


@pytest.fixture
def priced(shared, org):
    """An organization with ten dollars, a cheap default rate and a dear one for +44."""
    customer = CallCustomer(shared, org, cents=1_000)
    customer.rate(Rate(CHEAP, 1))
    customer.rate(Rate(DEAR, 1), "outbound:+44")
    customer.rate(Rate(DEAR, 1), "inbound:+44")
    return customer


@pytest.fixture
def uk_only(shared, org):
    """An organization with ten dollars and only a rate for outbound calls to +44."""
    customer = CallCustomer(shared, org, cents=1_000)
    without_default(customer)
    customer.rate(Rate(DEAR, 1), "outbound:+44")
    return customer


def without_default(customer):
    customer.do(lambda s: remove_rate(s, customer.id, "default", operator=ANN, now=T0))


def vapi_id(customer):
    return f"v-{customer.id}"[:64]


def the_call(customer):
    (call,) = customer.calls()
    return call


def numbers(their=UK, our="+15005550099"):
    return {
        "our_number": our,
        "their_number": their,
        "our_party": f"…{our[-4:]}",
        "their_party": f"…{their[-4:]}" if their else None,
    }


@pytest.mark.parametrize("is_over", [False, True])
def test_an_adopted_call_is_priced_by_its_number(priced, is_over):
    given = {"direction": "outbound", **numbers()}
    if not is_over:
        priced.report_status(vapi_id(priced), "in_progress", T0, **given)
        assert priced.hold(the_call(priced).id).reserved_micros == DEAR
    priced.report(vapi_id(priced), 60, later(60), **given)
    call = the_call(priced)
    assert (call.cost_micros, call.rate_route, call.oddities) == (DEAR, "outbound:+44", [])
    assert priced.cents() == (940, 0, 0)


def test_an_inbound_call_is_priced_by_our_number(priced):
    priced.report(vapi_id(priced), 60, later(60), direction="inbound", **numbers(US, our=UK))
    assert the_call(priced).cost_micros == DEAR


def test_call_admitted_without_the_database_is_priced_by_its_number(priced):
    given = {"direction": "inbound", **priced.fail_open(vapi_id(priced), "call_blind")}
    priced.report(vapi_id(priced), 60, later(60), **given, **numbers(US, our=UK))
    call = the_call(priced)
    assert (call.id, call.fail_open, call.cost_micros) == ("call_blind", True, DEAR)


def test_with_a_rate_for_its_number_alone_a_call_is_metered_and_charged(uk_only):
    uk_only.report_status(vapi_id(uk_only), "in_progress", T0, direction="outbound", **numbers())
    call = the_call(uk_only)
    assert uk_only.hold(call.id).reserved_micros == DEAR
    assert (call.rate_route, call.tick_at) == ("outbound:+44", T0)
    uk_only.report(call, 60, later(60), **numbers())
    assert uk_only.cents() == (940, 0, 0)
    assert unknown_alerts(uk_only.database, vapi_id(uk_only)) == []


# Numbers that are known only later


def test_call_reserved_without_its_number_is_rated_again_before_the_charge(priced):
    # Given a call reserved at the default rate
    priced.reserve(seconds=60)
    assert priced.hold().reserved_micros == CHEAP
    # When its first message names the number
    priced.report_status(priced.call(), "in_progress", later(10), **numbers())
    # Then it gets the number's rate, its tick is due at once, and its hold grows at that rate
    call = priced.call()
    assert (call.micros_per_minute, call.rate_route) == (DEAR, "outbound:+44")
    assert (call.oddities, call.tick_at) == (["re_rated"], later(10))
    assert priced.timeline()[-1] == "re_rated"
    assert priced.tick(later(10)) == TickResult()
    assert priced.tick(later(15)) == TickResult(extended=1)
    assert priced.hold().reserved_micros == CHEAP + DEAR
    # And it is charged at that rate, once
    for _ in range(2):
        priced.report(priced.call(), 60, later(80), **numbers())
    assert priced.call().cost_micros == DEAR
    assert priced.timeline().count("re_rated") == 1
    assert priced.cents() == (940, 0, 0)


def test_a_call_that_waits_for_its_next_tick_is_due_when_it_is_rated_again(priced):
    priced.reserve(seconds=600)
    priced.report_status(priced.call(), "in_progress", later(10))
    priced.tick(later(10))
    # No tick is scheduled more than a minute ahead
    assert priced.call().tick_at == later(70)
    priced.report_status(priced.call(), "forwarding", later(20), **numbers())
    assert priced.call().tick_at == later(20)


def test_the_number_of_the_report_is_in_time(priced):
    priced.reserve(seconds=60)
    priced.report(priced.call(), 60, later(80), **numbers())
    assert (priced.call().cost_micros, priced.call().oddities) == (DEAR, ["re_rated"])


def test_number_of_a_refresh_is_in_time(priced):
    priced.reserve(seconds=60)
    priced.refresh(priced.call(), "ended", later(80), duration_ms=60_000, **numbers())
    assert priced.call().cost_micros == DEAR


def test_a_call_reserved_for_another_number_than_it_uses_is_rated_again(priced):
    # Given a call reserved for a cheap number with the same last digits
    priced.reserve(number=US)
    priced.report(priced.call(), 60, later(80), **numbers())
    assert (priced.call().cost_micros, priced.call().oddities) == (DEAR, ["re_rated"])


def test_a_call_that_was_admitted_without_our_number_is_rated_again(priced):
    call_id = priced.admit_call(our_number=None)
    priced.report(priced.call(call_id), 60, later(80), **numbers(US, our=UK))
    assert priced.call(call_id).cost_micros == DEAR


def test_a_call_keeps_the_rate_that_its_number_had_when_it_began(priced):
    priced.reserve(number=UK)
    priced.rate(Rate(10 * DEAR, 1), "outbound:+44")
    execute(
        priced.database,
        "UPDATE call_rates SET set_at = :at WHERE organization_id = :org",
        at=later(5),
        org=priced.id,
    )
    priced.rate(Rate(20 * DEAR, 1), "outbound:+4477")
    execute(
        priced.database,
        "UPDATE call_rates SET set_at = :at WHERE organization_id = :org",
        at=later(5),
        org=priced.id,
    )
    priced.report(priced.call(), 60, later(80), **numbers())
    assert (priced.call().cost_micros, priced.call().oddities) == (DEAR, [])


def test_a_call_keeps_its_rate_when_the_route_was_removed_since(priced):
    priced.reserve(number=UK)
    priced.do(
        lambda s: remove_rate(
            s, priced.id, "outbound:+44", operator=Operator("a", "b"), now=later(1)
        )
    )
    priced.report(priced.call(), 60, later(80), **numbers())
    assert priced.call().cost_micros == DEAR


def test_a_number_that_was_seen_is_not_looked_up_again(priced):
    priced.reserve()
    priced.report_status(priced.call(), "in_progress", later(1), **numbers())
    priced.rate(Rate(10 * DEAR, 1), "outbound:+4477")
    priced.report(priced.call(), 60, later(80), **numbers())
    assert priced.call().cost_micros == DEAR


def test_priced_call_keeps_its_price_and_the_difference_is_alerted(priced):
    priced.reserve(seconds=60)
    priced.settle_by_api("c1", 60, later(70))
    for _ in range(2):
        priced.report(priced.call(), 60, later(80), **numbers())
    assert (priced.call().cost_micros, priced.cents()) == (CHEAP, (988, 0, 0))
    (alert,) = priced.alerts("call_differs")
    assert (alert.details["settled_micros"], alert.details["said_micros"]) == (CHEAP, DEAR)


def test_no_whole_number_is_stored(priced):
    priced.reserve(seconds=60)
    priced.report_status(priced.call(), "in_progress", later(10), **numbers())
    for table in ("calls", "call_timeline", "alerts", "jobs"):
        rows = priced.do(
            lambda s, table=table: s.connection().exec_driver_sql(f"SELECT * FROM {table}").all()
        )
        assert UK not in str(rows), table
    assert UK not in repr(priced.facts("x", "ended", **numbers()))


# Without any rate


def test_call_without_a_rate_is_stored_alerted_and_ended(uk_only):
    # Given a call that talks to a number without a matching rate
    uk_only.report_status(
        vapi_id(uk_only), "in_progress", later(5), direction="outbound", **numbers(US)
    )
    call = the_call(uk_only)
    assert (call.end_cause, call.tick_at, uk_only.hold(call.id)) == ("no_rate", None, None)
    assert uk_only.jobs("end_call") == [call.id]
    assert len(uk_only.alerts("call_unknown")) == 1
    # When it ends, its price needs an operator's decision
    uk_only.report(call, 8, later(13), **numbers(US))
    call = the_call(uk_only)
    assert (call.settled_at, uk_only.cents()) == (None, (1_000, 0, 0))
    assert len(uk_only.alerts("call_unsettled")) == 1
    with pytest.raises(Refused, match="NO_RATE"):
        uk_only.settle_manually(call.id, 8, later(20))
    # And once a rate is set, the next refresh charges the call
    uk_only.rate(Rate(DEAR, 1), "outbound:+1")
    uk_only.refresh(call, "ended", later(80), duration_ms=8_000, **numbers(US))
    call = the_call(uk_only)
    assert (call.cost_micros, call.rate_route) == (8 * CENT, "outbound:+1")
    assert call.oddities == ["no_rate", "re_rated"]
    assert uk_only.alerts("call_unsettled") == uk_only.alerts("call_unknown") == []
    assert uk_only.cents() == (992, 0, 0)


def test_operator_settles_a_call_without_a_rate_at_the_default_set_later(uk_only):
    uk_only.report(vapi_id(uk_only), 8, later(13), direction="outbound", **numbers(US))
    uk_only.rate(Rate(CHEAP, 1))
    uk_only.settle_manually(the_call(uk_only).id, 10, later(20))
    assert the_call(uk_only).cost_micros == 2 * CENT
    assert uk_only.alerts("call_unsettled") == uk_only.alerts("call_unknown") == []


def test_a_call_without_a_rate_that_was_never_connected_costs_nothing(uk_only):
    given = {"direction": "outbound", "never_connected": True, **numbers(US)}
    uk_only.report(vapi_id(uk_only), 0, later(13), **given)
    assert the_call(uk_only).cost_micros == 0
    assert uk_only.alerts("call_unknown") == []


def test_reserved_call_to_a_number_without_a_rate_is_ended_and_alerted(uk_only):
    # Given a call that is reserved for a number with a rate and uses one without
    uk_only.reserve(number=UK, seconds=60)
    uk_only.report_status(uk_only.call(), "in_progress", later(5), **numbers(US))
    assert (uk_only.call().end_cause, uk_only.call().oddities) == ("no_rate", ["no_rate"])
    assert len(uk_only.alerts("call_unknown")) == 1
    # Then it is charged at the rate of its reservation
    uk_only.report(uk_only.call(), 8, later(13), **numbers(US))
    assert uk_only.cents() == (992, 0, 0)
    assert uk_only.alerts("call_unknown") == []


def test_a_call_by_an_assistant_alone_is_priced_by_its_number(priced):
    priced.entry_point(EntryPointKind.ASSISTANT, priced.assistant_id)
    given = {"phone_number_id": None, "assistant_id": priced.assistant_id, "direction": "outbound"}
    priced.report(vapi_id(priced), 60, later(60), **given, **numbers())
    assert the_call(priced).cost_micros == DEAR
