"""The provider commands: list the circuits, and close one manually."""

from __future__ import annotations

import json
from datetime import datetime

from db.models import OperatorAction
from tests.db.redis.support import BULK, call, circuits, open_circuit


def shown(run, provider: str, call_class: str) -> dict:
    rows = json.loads(run("provider", "list", "--json")[1])
    return next(
        one for one in rows if (one["provider"], one["request_class"]) == (provider, call_class)
    )


def test_every_circuit_is_listed_with_its_limit(run):
    rows = json.loads(run("provider", "list", "--json")[1])
    assert [one["provider"] for one in rows] == ["paypal"] * 3 + ["twilio"] * 3 + ["vapi"] * 3
    assert {one["circuit"] for one in rows} == {"closed"}
    rates = {(one["provider"], one["request_class"]): one["requests_per_second"] for one in rows}
    assert rates == {
        ("paypal", "safety"): None,
        ("paypal", "money"): 10,
        ("paypal", "bulk"): 5,
        ("twilio", "safety"): None,
        ("twilio", "money"): 20,
        ("twilio", "bulk"): 50,
        ("vapi", "safety"): None,
        ("vapi", "money"): 10,
        ("vapi", "bulk"): 5,
    }


def test_failures_and_an_open_circuit_are_shown(run, redis_client):
    # Given one failure, then it is counted
    fleet = circuits(redis_client)
    call(fleet, BULK, "failed")
    assert shown(run, "twilio", "bulk")["failures"] == 1
    # Given enough failures to open the circuit, and a hold, then their end times are shown
    call(fleet, BULK, "failed")
    call(fleet, BULK, "failed", hold_seconds=50)
    row = shown(run, "twilio", "bulk")
    assert (row["circuit"], row["openings"]) == ("open", 1)
    assert row["open_until"]
    (held,) = row["held_back"]
    assert held["account_id"] == "AC1"
    assert datetime.fromisoformat(held["until"]).tzinfo is not None
    assert "half-open" not in run("provider", "list")[1]


def test_manually_closed_circuit_sends_calls_and_is_recorded(run, redis_client, database):
    # Given an open circuit and an account that is held back
    fleet = circuits(redis_client)
    open_circuit(fleet, BULK)
    fleet.leave(BULK, "", "answered", 50)
    # When an operator closes the circuit
    why = "Twilio says it is over"
    code, out, err = run("provider", "close-circuit", "twilio", "bulk", "--why", why, "--by", "ann")
    # Then calls go out, and the operator and the reason are logged and shown
    assert (code, out) == (0, "twilio bulk: closed\n")
    assert "circuit_closed_manually" in err
    assert why in err
    fleet.enter(BULK, 1.0)
    row = shown(run, "twilio", "bulk")
    assert (row["circuit"], row["held_back"]) == ("closed", [])
    assert row["last_manual_close"] == f"ann: {why}"
    # And they are recorded in the database, which keeps them longer than Redis does
    (noted,) = database.run(lambda s: s.query(OperatorAction).all())
    assert (noted.act, noted.subject) == ("circuit.close", "twilio:bulk")
    assert (noted.operator, noted.why) == ("ann", why)


def test_closing_a_closed_circuit_reports_that_it_was_closed(run):
    _, out, _ = run("provider", "close-circuit", "paypal", "money", "--why", "to be sure")
    assert out == "paypal money: was already closed\n"


def test_uncalled_provider_has_no_circuit_to_close(run):
    code, _, err = run("provider", "close-circuit", "stripe", "money", "--why", "to be sure")
    assert (code, "stripe has no circuits" in err) == (1, True)


def test_circuit_is_not_closed_without_a_reason(run, redis_client):
    open_circuit(circuits(redis_client), BULK)
    assert run("provider", "close-circuit", "twilio", "bulk")[0] == 2
    code, _, err = run("provider", "close-circuit", "twilio", "bulk", "--why", " ")
    line = "REASON_REQUIRED: An operator action needs a name and a reason"
    assert (code, err) == (1, f"holdfast: {line}: the reason must not be empty\n")
    row = shown(run, "twilio", "bulk")
    assert (row["circuit"], row["last_manual_close"]) == ("open", None)


def test_circuit_stays_open_when_operator_and_reason_cannot_be_recorded(
    run, redis_client, monkeypatch
):
    open_circuit(circuits(redis_client), BULK)
    monkeypatch.setenv("DATABASE_URL", "postgresql://holdfast_app@/none?host=/nowhere")
    assert run("provider", "close-circuit", "twilio", "bulk", "--why", "x")[0] == 1
    assert shown(run, "twilio", "bulk")["circuit"] == "open"


def test_missing_redis_is_reported_in_one_line(run, monkeypatch):
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/valkey.sock?db=0")
    code, _, err = run("provider", "list")
    assert code == 1
    assert "Redis did not answer" in err
