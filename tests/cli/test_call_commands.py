"""holdfast call: rates, terms, entry points, costs, and the calls themselves."""

from __future__ import annotations

import json
from datetime import datetime

import psycopg
import pytest

from base.enums import CallDirection
from base.facts import AdmissionRequest
from db.address import driver_url
from db.engine import clock
from domain.calls import admission, reservations
from tests.domain.support import subscribe
from tests.support.world import fund, make_organization


@pytest.fixture
def org(organization_id):
    return organization_id


@pytest.fixture
def call(org, run, database):
    """A reserved call that costs one cent a second."""
    output_of(run, "call", "rate", "set", org, "--per-minute", "0.60", "--why", "prices")
    subscribe(database, org)
    reserve(
        database,
        org,
        "visit-1",
        provider_call_id="019d0000-0000-7000-8000-000000000001",
        appointment_id="appointment-1",
    )
    return "visit-1"


def reserve(database, org: str, call_id: str, **more) -> None:
    more = {"provider_call_id": None, "appointment_id": "appointment-1", **more}
    reserved = database.run(
        lambda session: reservations.reserve_for_call(
            session, org, call_id=call_id, estimated_seconds=60, now=clock(session), **more
        )
    )
    assert reserved.outcome.ok, reserved.outcome


def output_of(run, *arguments: str) -> str:
    code, out, err = run(*arguments)
    assert code == 0, err
    return out


def data(run, *arguments: str):
    return json.loads(output_of(run, *arguments, "--json"))


def refused(run, *arguments: str) -> str:
    code, _, err = run(*arguments)
    assert code == 1
    assert err.startswith("holdfast: ") and err.count("\n") == 1, err
    return err


def test_rate_is_set_listed_and_removed(org, run):
    output_of(
        run, "call", "rate", "set", org, "--per-minute", "0.12", "--increment", "6",
        "--minimum", "0.02", "--route", "outbound:+44", "--why", "prices",
    )  # fmt: skip
    (row,) = data(run, "call", "rate", "list", org)
    assert row["route"] == "outbound:+44"
    assert (row["per_minute_micros"], row["minimum_micros"]) == (120_000, 20_000)
    assert (row["currency"], row["increment_seconds"]) == ("USD", 6)
    assert datetime.fromisoformat(row["set_at"]).tzinfo is not None
    assert "removed" in output_of(
        run, "call", "rate", "remove", org, "outbound:+44", "--why", "gone"
    )
    assert "not found" in output_of(
        run, "call", "rate", "remove", org, "outbound:+44", "--why", "gone"
    )
    assert data(run, "call", "rate", "list", org) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--per-minute", "0"), "INVALID_RATE"),
        (("--per-minute", "cheap"), "cheap"),
        (("--per-minute", "1", "--increment", "7"), "INVALID_RATE"),
        (("--per-minute", "1", "--route", "home"), "INVALID_RATE"),
    ],
)
def test_invalid_rate_is_refused_in_one_line(org, run, arguments, message):
    assert message in refused(run, "call", "rate", "set", org, *arguments, "--why", "x")


def test_only_the_named_terms_change(org, run):
    before = data(run, "call", "terms", "show", org)
    output_of(
        run, "call", "terms", "set", org, "--margin-seconds", "8", "--fail-open", "--why", "x"
    )
    after = data(run, "call", "terms", "show", org)
    assert after == before | {"margin_seconds": 8, "fail_open": True}
    assert "name at least one" in refused(run, "call", "terms", "set", org, "--why", "x")
    wrong = ("--margin-seconds", "0")
    assert "INVALID_TERMS" in refused(run, "call", "terms", "set", org, *wrong, "--why", "x")


def test_entry_point_belongs_to_one_organization(org, run, database):
    output_of(
        run,
        "call",
        "entry-point",
        "add",
        org,
        "phone_number",
        "n1",
        "--assistant",
        "a1",
        "--why",
        "x",
    )
    (row,) = data(run, "call", "entry-point", "list", org)
    assert data(run, "call", "door", "list", org) == [row]
    assert (row["kind"], row["external_id"], row["assistant_id"]) == ("phone_number", "n1", "a1")
    other = make_organization(database)
    assert "INVALID_ENTRY_POINT" in refused(
        run, "call", "entry-point", "add", other, "phone_number", "n1", "--why", "x"
    )
    assert "removed" in output_of(
        run, "call", "entry-point", "remove", "phone_number", "n1", "--why", "x"
    )


def test_call_is_listed_and_shown_by_each_of_its_ids(call, org, run):
    (row,) = data(run, "call", "list")
    assert (row["call_id"], row["organization_id"], row["status"]) == (call, org, "admitted")
    assert (row["refusal"], row["is_ending"], row["cost_micros"]) == (None, False, None)
    assert row["billing_state"] == "held"
    for name in (call, "019d0000-0000-7000-8000-000000000001", "appointment-1"):
        shown = data(run, "call", "show", name)
        assert (shown["call_id"], shown["hold_status"]) == (call, "open")
        assert (shown["reserved_micros"], shown["shortfall_micros"]) == (600_000, 0)
        assert shown["billing_meaning"].startswith("A hold sets money aside.")
    assert [one["event"] for one in shown["timeline"]] == ["reserved"]
    assert "CALL_NOT_FOUND" in refused(run, "call", "show", "other")


def test_calls_are_listed_by_state_and_page_by_page(call, org, run, database):
    # Given a second call, which has ended and was charged
    reserve(database, org, "visit-2", appointment_id=None)
    output_of(run, "call", "settle", "visit-2", "--seconds", "1", "--why", "by the log")

    # When calls are listed with filters
    def listed(*asked: str) -> list[str]:
        return [row["call_id"] for row in data(run, "call", "list", *asked)]

    # Then only the matching calls are listed, in pages if there is a limit
    assert listed() == [call]
    assert listed("--all", "--org", org) == ["visit-2", call]
    assert listed("--unsettled") == listed("--status", "admitted") == [call]
    assert listed("--status", "ended", "--org", org) == []
    assert listed("--state", "held") == [call]
    assert listed("--state", "charged", "--org", org) == ["visit-2"]
    assert "UNBOUNDED_SEARCH" in refused(run, "call", "list", "--state", "charged")
    page = ("--all", "--org", org, "--limit", "1")
    assert listed(*page, "--after", f"{org}/visit-2") == [call]
    for form in ((), ("--json",)):
        assert run("call", "list", *page, *form)[2] == f"more: --after {org}/visit-2\n"
    assert "UNBOUNDED_SEARCH" in refused(run, "call", "list", "--all")
    assert "CALL_NOT_FOUND" in refused(run, "call", "list", "--after", "nothing")


def test_ambiguous_call_id_is_refused(call, org, run, database):
    # Given another organization's call with the same ID and the same appointment
    other = make_organization(database, micros=5_000_000)
    output_of(run, "call", "rate", "set", other, "--per-minute", "0.60", "--why", "prices")
    subscribe(database, other)
    reserve(database, other, call)
    # When one of them should be ended or settled, without naming the organization
    for act in (("end", call), ("settle", call, "--seconds", "1"), ("end", "appointment-1")):
        line = refused(run, "call", *act, "--why", "x")
        # Then nothing is done, and both organizations are named
        assert "CALL_NOT_UNIQUE" in line and org in line and other in line
    for one in (org, other):
        assert data(run, "call", "show", call, "--org", one)["end_cause"] is None
    # And with the organization named, only its call is ended
    done = data(run, "call", "end", call, "--org", other, "--why", "x")
    assert done == {"call_id": call, "organization_id": other, "action": "end", "changed": True}
    assert data(run, "call", "show", call, "--org", org)["end_cause"] is None


def test_appointment_is_refused_as_a_call_id_when_it_has_several_calls(call, org, run, database):
    # Given an appointment with two calls
    reserve(database, org, "visit-2")
    # When the appointment is named
    for act in (("end",), ("settle", "--seconds", "1")):
        line = refused(run, "call", *act, "appointment-1", "--org", org, "--why", "x")
        # Then neither call is changed, and both are named
        assert call in line and "visit-2" in line
    for one in (call, "visit-2"):
        shown = data(run, "call", "show", one)
        assert (shown["end_cause"], shown["cost_micros"]) == (None, None)
    # And `call show` shows the newest
    assert data(run, "call", "show", "appointment-1")["call_id"] == "visit-2"


def test_changes_are_printed_as_json_with_operator_and_reason(org, run, urls):
    # When each of the changes is made with --json
    why = ("--why", "the contract", "--by", "ann")
    rate = data(run, "call", "rate", "set", org, "--per-minute", "0.12", *why)
    faults = ("--fault-policy", "charge", "--fault-waived-minutes", "5")
    terms = data(run, "call", "terms", "set", org, *faults, *why)
    entry_point = data(run, "call", "entry-point", "add", org, "assistant", "a1", *why)
    gone = data(run, "call", "entry-point", "remove", "assistant", "a1", *why)
    none = data(run, "call", "rate", "remove", org, "inbound", *why)
    # Then each of them reports what it did
    assert rate == {
        "organization_id": org,
        "action": "set_rate",
        "route": "default",
        "per_minute_micros": 120_000,
        "increment_seconds": 1,
        "minimum_micros": 0,
        "currency": "USD",
    }
    assert terms == {
        "organization_id": org,
        "action": "set_terms",
        "terms": {"fault_policy": "charge", "fault_waived_minutes": 5},
    }
    named = {"kind": "assistant", "external_id": "a1"}
    added = {"organization_id": org, "assistant_id": None, "brand_id": None}
    assert entry_point == named | added | {"action": "add_entry_point"}
    assert gone == named | {"action": "remove_entry_point", "changed": True}
    assert none == {
        "organization_id": org,
        "action": "remove_rate",
        "route": "inbound",
        "changed": False,
    }
    # And each actual change is in the history, with name and reason
    with psycopg.connect(driver_url(urls.owner_url)) as connection:
        acts = connection.execute("SELECT act, operator, why FROM operator_acts ORDER BY id")
        assert acts.fetchall() == [
            (act, "ann", "the contract")
            for act in ("call_rate.set", "call_terms.set", "call_door.add", "call_door.remove")
        ]


def test_call_is_ended_manually_once(call, run):
    assert "is being ended" in output_of(run, "call", "end", call, "--why", "a complaint")
    assert "already" in output_of(run, "call", "end", call, "--why", "a complaint")
    assert data(run, "call", "show", call)["end_cause"] == "OPERATOR"


def test_manually_settled_call_adds_to_the_costs(call, org, run, database):
    assert "0.13" in output_of(
        run, "call", "settle", call, "--seconds", "12.5", "--why", "by the log"
    )
    shown = data(run, "call", "show", call)
    assert (shown["cost_micros"], shown["settled_by"]) == (130_000, "operator")
    assert (shown["currency"], shown["duration_ms"]) == ("USD", 12_500)
    (day,) = data(run, "call", "costs")
    assert (day["organization_id"], day["calls"]) == (org, 1)
    assert (day["cost_micros"], day["currency"]) == (130_000, "USD")
    assert (day["provider_cost_micros"], day["provider_cost_currency"]) == (0, "USD")
    again = ("call", "settle", call, "--seconds", "1", "--why", "x")
    assert "CALL_SETTLED" in refused(run, *again)
    fund(database, org, 1)


@pytest.mark.parametrize("seconds", ["long", "-1", "1e9", "nan", ""])
def test_invalid_duration_is_refused_and_nothing_is_charged(call, run, seconds):
    refused(run, "call", "settle", call, f"--seconds={seconds}", "--why", "x")
    assert data(run, "call", "show", call)["cost_micros"] is None


def test_costs_of_invalid_days_are_refused(org, run):
    assert "--from" in refused(run, "call", "costs", "--from", "2026-01-02", "--to", "2026-01-01")


def test_refused_call_is_listed_and_shown_with_its_reason(org, run, database):
    # Given a number that leads to an organization without a rate
    output_of(
        run,
        "call",
        "entry-point",
        "add",
        org,
        "phone_number",
        "n1",
        "--assistant",
        "a1",
        "--why",
        "x",
    )
    ask = AdmissionRequest("v-1", CallDirection.INBOUND, None, "n1", None, "…0006", None, None)
    made = database.run(lambda session: admission.admit(session, ask, clock(session)))
    assert made.refusal is not None
    # Then its call is listed beside the live calls, and shown with the reason
    (row,) = data(run, "call", "list")
    assert (row["status"], row["refusal"]) == ("refused", made.refusal)
    (row,) = data(run, "call", "list", "--status", "refused", "--org", org)
    assert row["their_number"] == "…0006"
    shown = data(run, "call", "show", "v-1")
    assert (shown["refusal"], shown["hold_status"]) == (made.refusal, None)
    assert "UNBOUNDED_SEARCH" in refused(run, "call", "list", "--status", "refused")
