"""Thresholds by command: output and refusals."""

from __future__ import annotations

import json

import pytest

from tests.support.world import fund


def data(answer):
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def test_thresholds_are_set_shown_and_removed(run, organization_id):
    # Given a threshold above the available amount and one below
    command = ("wallet", "thresholds", organization_id)
    rows = data(
        run(*command, "--set", "20", "--set", "1.5", "--why", "asked", "--by", "ann", "--json")
    )
    assert [(row["threshold_micros"], row["state"], row["set_by"]) for row in rows] == [
        (20_000_000, "crossed", "ann"),
        (1_500_000, "armed", "ann"),
    ]
    assert {row["currency"] for row in rows} == {"USD"}
    # Then they are shown with their states, and the crossed one's alert is listed
    assert data(run(*command, "--json")) == rows
    assert "20.00 USD" in run(*command)[1]
    (alert,) = data(run("alert", "list", "--org", organization_id, "--json"))
    assert (alert["kind"], alert["subject"]) == ("low_balance", "20000000")
    assert "low_balance" in run("alert", "list")[1]
    # When all are removed
    assert (
        run(*command, "--clear", "--why", "no more")[1]
        == f"thresholds of {organization_id}: none\n"
    )
    assert data(run("alert", "list", "--json")) == []
    (past,) = data(run("alert", "list", "--all", "--kind", "low_balance", "--json"))
    assert past["cleared_at"] is not None


def test_crossed_threshold_is_rearmed_manually(run, database, organization_id):
    command = ("wallet", "thresholds", organization_id)
    run(*command, "--set", "20", "--why", "asked")
    fund(database, organization_id, 30_000_000)
    assert data(run(*command, "--json"))[0]["state"] == "crossed"
    (row,) = data(run(*command, "--rearm", "--why", "paid by cheque", "--json"))
    assert (row["state"], row["reason"]) == ("armed", "paid by cheque")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nope",), "WALLET_NOT_FOUND: The organization has no wallet: nope"),
        (("ORG", "--set", "20"), "REASON_REQUIRED"),
        (("ORG", "--clear", "--why", " "), "REASON_REQUIRED"),
        (("ORG", "--rearm"), "REASON_REQUIRED"),
        (("ORG", "--set", "abc", "--why", "x"), "out of bounds: 'abc'"),
        (("ORG", "--set", "0", "--why", "x"), "INVALID_AMOUNT"),
        (("ORG", "--set", "1", "--clear", "--why", "x"), "one of --set, --clear"),
    ],
)
def test_invalid_threshold_input_is_refused_in_one_line(run, organization_id, arguments, line):
    given = [organization_id if one == "ORG" else one for one in arguments]
    code, out, err = run("wallet", "thresholds", *given)
    assert (code, out) == (1, "")
    assert err.startswith("holdfast: ")
    assert err.count("\n") == 1
    assert line in err
    assert data(run("wallet", "thresholds", organization_id, "--json")) == []
