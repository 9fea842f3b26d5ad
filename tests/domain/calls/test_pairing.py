"""Pairing a report with a reservation by our IDs, only with the token."""

from __future__ import annotations

import pytest

from domain.calls.pairing import fail_open_token
from tests.domain.calls.support import CallCustomer
from tests.domain.support import later
from tests.support.world import make_organization


def vapi_id(customer, mark="v"):
    return f"{mark}-{customer.id}"[:64]


def ids(customer):
    return {call.id: call.provider_call_id for call in customer.calls()}


def test_reservation_returns_a_token_of_its_own(customer):
    tokens = [customer.reserve(one, seconds=10).pairing_token for one in ("c1", "c2")]
    assert all(len(token) == 32 for token in tokens) and len(set(tokens)) == 2
    # And the same token on replay
    assert customer.reserve("c1", provider=None).pairing_token == tokens[0]
    assert customer.call("c1").pairing_token == tokens[0]


def test_a_report_is_paired_by_our_ids_with_the_token(customer):
    customer.reserve("c1", provider=None)
    customer.report_status(
        vapi_id(customer), "in_progress", later(1), direction="outbound", **customer.metadata()
    )
    assert ids(customer) == {"c1": vapi_id(customer)}
    customer.report(vapi_id(customer), 20, later(30))
    assert customer.cents() == (80, 0, 0)


@pytest.mark.parametrize(
    "given",
    [
        {"pairing_token": None},
        {"pairing_token": ""},
        {"pairing_token": "x" * 32},
        {"call_id": "c2"},
        {"direction": "web"},
        {"direction": "inbound"},
    ],
)
def test_a_report_without_the_right_token_or_direction_is_not_paired(customer, given):
    customer.reserve("c1", seconds=10, provider=None)
    customer.reserve("c2", seconds=10, provider=None)
    ours = {"direction": "outbound", **customer.metadata(), **given}
    assert customer.report_status(vapi_id(customer), "in_progress", later(1), **ours)
    # Then it becomes a separate call, under an ID of ours
    found = ids(customer)
    assert (found.pop("c1"), found.pop("c2")) == (None, None)
    ((call_id, provider_call_id),) = found.items()
    assert call_id.startswith("call_") and provider_call_id == vapi_id(customer)


def test_a_browser_cannot_take_the_id_of_a_future_call(customer):
    # Given a web call through the public assistant that names an ID of the company
    ours = {"organization_id": customer.id, "call_id": "booking-124", "pairing_token": "guessed"}
    assert customer.report(vapi_id(customer), 1, direction="web", **ours)
    assert "booking-124" not in ids(customer)
    # Then the company can reserve under that ID, and its real call is charged
    assert customer.reserve("booking-124", provider=vapi_id(customer, "w")).outcome.ok
    customer.report(vapi_id(customer, "w"), 20, later(30), direction="outbound")
    assert customer.cents() == (79, 0, 0)
    assert customer.call("booking-124").cost_micros == 200_000


def test_a_token_pairs_one_call_and_once(customer):
    customer.reserve("c1", seconds=10, provider=None)
    customer.report_status(
        vapi_id(customer), "in_progress", later(1), direction="outbound", **customer.metadata()
    )
    customer.report_status(
        vapi_id(customer, "w"), "in_progress", later(2), direction="outbound", **customer.metadata()
    )
    assert ids(customer)["c1"] == vapi_id(customer) and len(ids(customer)) == 2


def test_token_of_a_call_admitted_without_the_database_proves_that_call(customer):
    customer.terms()
    ours = customer.fail_open(vapi_id(customer))
    nobodys = {"phone_number_id": "unlisted", "assistant_id": None, "direction": "inbound"}
    # Given the metadata of one call, sent by another call
    assert not customer.report_status(vapi_id(customer, "w"), "in_progress", **ours, **nobodys)
    assert not customer.report_status(
        vapi_id(customer), "in_progress", **{**ours, "call_id": "other"}, **nobodys
    )
    assert customer.calls() == []
    assert customer.report_status(vapi_id(customer), "in_progress", **ours, **nobodys)
    assert ids(customer) == {"call_given": vapi_id(customer)}


def test_a_key_of_another_organization_proves_nothing(customer, shared):
    other = CallCustomer(shared, make_organization(shared))
    theirs = other.fail_open(vapi_id(customer))["pairing_token"]
    ours = {**customer.fail_open(vapi_id(customer)), "pairing_token": theirs}
    assert not customer.report_status(
        vapi_id(customer), "in_progress", phone_number_id="unlisted", **ours
    )
    assert customer.calls() == []
    assert fail_open_token("a", "b", "c", "d") != fail_open_token("a", "bc", "", "d")


def test_our_ids_without_a_proof_are_not_used_for_an_adopted_call(customer):
    ours = {"organization_id": customer.id, "call_id": "call_given"}
    assert customer.report_status(vapi_id(customer), "in_progress", direction="inbound", **ours)
    (call,) = customer.calls()
    assert (call.id == "call_given", call.fail_open, call.origin) == (False, False, "adopted")
