"""Calls that an older worker writes, without an origin, during a rolling upgrade."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from base.outcomes import Refused
from domain.wallet import holds
from tests.domain.calls.support import CENT, CallCustomer
from tests.domain.support import T0, later
from tests.support.world import make_organization


def vapi_id(customer, mark="v"):
    return f"{mark}-{customer.id}"[:64]


#: The columns that the version before origins inserts.
_INSERT = text(
    "INSERT INTO calls (organization_id, id, provider_call_id, direction, status, fail_open,"
    " currency, micros_per_minute, increment_seconds, minimum_micros, debt_micros, end_rounds,"
    " oddities, tick_at, created_at) VALUES (:org, :id, :provider, :direction, 'admitted', false,"
    " 'USD', 600000, 1, 0, 0, 0, '{}', :tick, :now)"
)
_NOTE = text(
    "INSERT INTO call_timeline (organization_id, call_id, at, what) VALUES (:org, :id, :now, :what)"
)


def old_row(customer, call_id, *, provider=None, direction="outbound", adopted=False, now=T0):
    """Write a call with its hold as the version before origins does."""
    given = {"org": customer.id, "id": call_id, "now": now}

    def work(session):
        assert holds.reserve(
            session,
            customer.id,
            call_id=call_id,
            provider_call_id=provider,
            amount_micros=30 * CENT,
            currency="USD",
            expires_at=later(930),
            now=now,
        ).ok
        row = {**given, "provider": provider, "direction": direction, "tick": later(30)}
        session.execute(_INSERT, row)
        for what in ("reserved", *(["adopted"] if adopted else [])):
            session.execute(_NOTE, {**given, "what": what})

    customer.do(work)


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ({}, "reserved"),
        ({"provider": "v"}, "reserved"),
        ({"provider": "v", "adopted": True}, "adopted"),
        ({"provider": "v", "direction": "web", "adopted": True}, "adopted"),
        ({"provider": "v", "direction": "inbound"}, "admitted"),
    ],
)
def test_origin_is_derived_for_a_row_of_the_version_before(customer, given, origin):
    provider = vapi_id(customer) if given.get("provider") else None
    old_row(customer, "c1", **{**given, "provider": provider})
    assert customer.call("c1").origin == origin
    # And a row of this version keeps its origin
    customer.reserve("c2", seconds=5, provider=None)
    assert customer.call("c2").origin == "reserved"


def test_adopted_call_of_the_version_before_is_merged_and_charged_once(customer):
    # Given a reservation of this version, and a call that an older worker adopted
    customer.reserve("c1", seconds=30, provider=None)
    old_row(customer, "call_old", provider=vapi_id(customer), adopted=True, now=later(1))
    # When the company commits, Then Vapi's ID is required, and the two are one call
    with pytest.raises(Refused) as refused:
        customer.commit("c1", 20, later(21))
    assert refused.value.code == "UNPAIRED_CALL"
    assert customer.commit("c1", 20, later(22), vapi_id(customer)).call.id == "call_old"
    customer.report(vapi_id(customer), 20, later(23), direction="outbound")
    assert customer.cents() == (80, 0, 0)


def test_reservation_of_the_version_before_is_not_charged_twice(customer):
    # Given a reservation that an older worker wrote, committed before any report
    old_row(customer, "c1")
    customer.commit("c1", 20, later(21))
    report = {"direction": "outbound", "started_at": later(1), "ended_at": later(21)}
    customer.report(vapi_id(customer), 20, later(25), **report)
    # Then the call waits for its pairing, and is charged once
    assert (customer.cents(), len(customer.alerts("call_unsettled"))) == ((80, 0, 0), 1)
    customer.commit("c1", 20, later(30), vapi_id(customer))
    assert (customer.cents(), customer.alerts("call_unsettled")) == ((80, 0, 0), [])


def test_reservation_of_the_version_before_gets_a_pairing_token(customer):
    old_row(customer, "c1")
    assert customer.reserve("c1", provider=None, now=later(1)).pairing_token
    assert customer.report_status(
        vapi_id(customer), "in_progress", later(5), **customer.metadata("c1")
    )
    customer.report(vapi_id(customer), 20, later(25))
    assert customer.cents() == (80, 0, 0)


def test_foreign_number_is_found_for_a_reservation_of_the_version_before(customer, shared):
    cheap = CallCustomer(shared, make_organization(shared))
    old_row(cheap, "c1", provider=vapi_id(customer))
    customer.report_status(vapi_id(customer), "in_progress", later(1), direction="outbound")
    customer.report(vapi_id(customer), 20, later(30), direction="outbound")
    # Then the number's owner pays, and the organization that reserved does not
    assert (cheap.cents(), customer.cents()) == ((100, 0, 0), (80, 0, 0))
