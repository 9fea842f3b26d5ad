"""Pairing a report with a reservation by our IDs, only with the token."""

from __future__ import annotations

import pytest

from domain.calls.pairing import fail_open_token
from tests.domain.calls.support import Line
from tests.domain.support import later
from tests.support.world import make_organization


def name(line, mark="v"):
    return f"{mark}-{line.id}"[:64]


def ids(line):
    return {call.id: call.provider_call_id for call in line.calls()}


def test_reservation_returns_a_token_of_its_own(line):
    tokens = [line.reserve(one, seconds=10).pairing_token for one in ("c1", "c2")]
    assert all(len(token) == 32 for token in tokens) and len(set(tokens)) == 2
    # And the same token on replay
    assert line.reserve("c1", provider=None).pairing_token == tokens[0]
    assert line.call("c1").pairing_token == tokens[0]


def test_a_report_is_paired_by_our_ids_with_the_token(line):
    line.reserve("c1", provider=None)
    line.hear(name(line), "in_progress", later(1), direction="outbound", **line.metadata())
    assert ids(line) == {"c1": name(line)}
    line.report(name(line), 20, later(30))
    assert line.cents() == (80, 0, 0)


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
def test_a_report_without_the_right_token_or_direction_is_not_paired(line, given):
    line.reserve("c1", seconds=10, provider=None)
    line.reserve("c2", seconds=10, provider=None)
    ours = {"direction": "outbound", **line.metadata(), **given}
    assert line.hear(name(line), "in_progress", later(1), **ours)
    # Then it becomes a separate call, under an ID of ours
    found = ids(line)
    assert (found.pop("c1"), found.pop("c2")) == (None, None)
    ((call_id, provider_call_id),) = found.items()
    assert call_id.startswith("call_") and provider_call_id == name(line)


def test_a_browser_cannot_take_the_id_of_a_future_call(line):
    # Given a web call through the public assistant that names an ID of the company
    ours = {"organization_id": line.id, "call_id": "booking-124", "pairing_token": "guessed"}
    assert line.report(name(line), 1, direction="web", **ours)
    assert "booking-124" not in ids(line)
    # Then the company can reserve under that ID, and its real call is charged
    assert line.reserve("booking-124", provider=name(line, "w")).outcome.ok
    line.report(name(line, "w"), 20, later(30), direction="outbound")
    assert line.cents() == (79, 0, 0)
    assert line.call("booking-124").cost_micros == 200_000


def test_a_token_pairs_one_call_and_once(line):
    line.reserve("c1", seconds=10, provider=None)
    line.hear(name(line), "in_progress", later(1), direction="outbound", **line.metadata())
    line.hear(name(line, "w"), "in_progress", later(2), direction="outbound", **line.metadata())
    assert ids(line)["c1"] == name(line) and len(ids(line)) == 2


def test_token_of_a_call_admitted_without_the_database_proves_that_call(line):
    line.terms()
    ours = line.fail_open(name(line))
    nobodys = {"phone_number_id": "unlisted", "assistant_id": None, "direction": "inbound"}
    # Given the metadata of one call, sent by another call
    assert not line.hear(name(line, "w"), "in_progress", **ours, **nobodys)
    assert not line.hear(name(line), "in_progress", **{**ours, "call_id": "other"}, **nobodys)
    assert line.calls() == []
    assert line.hear(name(line), "in_progress", **ours, **nobodys)
    assert ids(line) == {"call_given": name(line)}


def test_a_key_of_another_organization_proves_nothing(line, shared):
    other = Line(shared, make_organization(shared))
    theirs = other.fail_open(name(line))["pairing_token"]
    ours = {**line.fail_open(name(line)), "pairing_token": theirs}
    assert not line.hear(name(line), "in_progress", phone_number_id="unlisted", **ours)
    assert line.calls() == []
    assert fail_open_token("a", "b", "c", "d") != fail_open_token("a", "bc", "", "d")


def test_our_ids_without_a_proof_are_not_used_for_an_adopted_call(line):
    ours = {"organization_id": line.id, "call_id": "call_given"}
    assert line.hear(name(line), "in_progress", direction="inbound", **ours)
    (call,) = line.calls()
    assert (call.id == "call_given", call.fail_open, call.origin) == (False, False, "adopted")
