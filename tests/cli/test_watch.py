"""Thresholds, automatic top-up and alerts by command: output and refusals."""

from __future__ import annotations

import json

import pytest

from base.enums import Provider
from base.operators import Operator
from db.engine import clock
from domain.top_ups import charges as top_up_charges
from domain.top_ups import decisions as top_ups
from domain.top_ups import settings as top_up_settings
from domain.top_ups.rule import TopUpTerms
from domain.top_ups.settings import Method
from tests.support.world import fund

PAYPAL = frozenset({Provider.PAYPAL})
TERMS = (
    *("--provider", "paypal", "--payment-method", "card-1"),
    *("--below", "20", "--amount", "50", "--day-cap", "100"),
)


def data(answer):
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def test_thresholds_are_set_shown_and_removed(run, organization_id):
    # Given a threshold above the available amount and one below
    words = ("wallet", "thresholds", organization_id)
    rows = data(
        run(*words, "--set", "20", "--set", "1.5", "--why", "asked", "--by", "ann", "--json")
    )
    assert [(row["threshold_micros"], row["state"], row["set_by"]) for row in rows] == [
        (20_000_000, "crossed", "ann"),
        (1_500_000, "armed", "ann"),
    ]
    assert {row["currency"] for row in rows} == {"USD"}
    # Then they are shown with their states, and the crossed one's alert is listed
    assert data(run(*words, "--json")) == rows
    assert "20.00 USD" in run(*words)[1]
    (alert,) = data(run("alert", "list", "--org", organization_id, "--json"))
    assert (alert["kind"], alert["subject"]) == ("low_balance", "20000000")
    assert "low_balance" in run("alert", "list")[1]
    # When all are removed
    assert (
        run(*words, "--clear", "--why", "no more")[1] == f"thresholds of {organization_id}: none\n"
    )
    assert data(run("alert", "list", "--json")) == []
    (past,) = data(run("alert", "list", "--all", "--kind", "low_balance", "--json"))
    assert past["cleared_at"] is not None


def test_alert_is_cleared_manually_with_a_reason(run, organization_id):
    run("wallet", "thresholds", organization_id, "--set", "20", "--why", "asked")
    (alert,) = data(run("alert", "list", "--org", organization_id, "--json"))
    code, _, err = run("alert", "clear", str(alert["alert_id"]), "--why", " ")
    assert (code, "the reason must not be empty" in err) == (1, True)
    cleared = data(run("alert", "clear", str(alert["alert_id"]), "--why", "told them", "--json"))
    assert (cleared["alert_id"], cleared["cleared_at"] is not None) == (alert["alert_id"], True)
    assert data(run("alert", "list", "--org", organization_id, "--json")) == []
    code, _, err = run("alert", "clear", "999999999", "--why", "told them")
    assert (code, "ALERT_NOT_FOUND" in err) == (1, True)


def test_crossed_threshold_is_rearmed_manually(run, database, organization_id):
    words = ("wallet", "thresholds", organization_id)
    run(*words, "--set", "20", "--why", "asked")
    fund(database, organization_id, 30_000_000)
    assert data(run(*words, "--json"))[0]["state"] == "crossed"
    (row,) = data(run(*words, "--rearm", "--why", "paid by cheque", "--json"))
    assert (row["state"], row["reason"]) == ("armed", "paid by cheque")


def test_automatic_top_up_is_refused_while_no_provider_can_charge(run, organization_id):
    words = ("wallet", "auto-top-up", organization_id)
    code, out, err = run(*words, *TERMS, "--why", "asked")
    assert (code, out) == (1, "")
    title = "The provider cannot charge a stored payment method"
    assert err == f"holdfast: CANNOT_CHARGE: {title}: paypal\n"
    assert data(run(*words, "--json"))["state"] == "never_set"


def test_automatic_top_up_is_shown_with_its_decisions_and_switched_off(
    run, database, organization_id
):
    # Given an automatic top-up that is switched on and crossed, with a decision
    terms = TopUpTerms(20_000_000, 50_000_000, 100_000_000, 3)
    method = Method(Provider.PAYPAL, "card-1")
    operator = Operator("ann", "asked")

    def agree(session):
        now = clock(session)
        top_up_settings.switch_on(
            session, organization_id, terms, method, chargeable=PAYPAL, operator=operator, now=now
        )
        top_ups.decide(session, organization_id, now, chargeable=PAYPAL)

    database.run(agree)
    words = ("wallet", "auto-top-up", organization_id)
    shown = data(run(*words, "--json"))
    assert (shown["state"], shown["crossed_at"] is not None) == ("crossed", True)
    assert (shown["below_micros"], shown["amount_micros"]) == (20_000_000, 50_000_000)
    assert (shown["day_cap_micros"], shown["day_count_max"]) == (100_000_000, 3)
    (decision,) = shown["decisions"]
    assert (decision["amount_micros"], decision["state"]) == (50_000_000, "decided")
    assert "50.00 USD  decided" in run(*words)[1]
    # When the charge is declined and automatic top-up is switched off
    database.run(
        lambda session: top_up_charges.record_declined(
            session, decision["decision_id"], "no funds", clock(session)
        )
    )
    shown = data(run(*words, "--off", "--why", "asked", "--by", "bob", "--json"))
    assert (shown["state"], shown["set_by"]) == ("off", "bob")
    (decision,) = shown["decisions"]
    assert (decision["state"], decision["decline_code"]) == ("declined", "no funds")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("thresholds", "nope"), "WALLET_NOT_FOUND: The organization has no wallet: nope"),
        (("thresholds", "ORG", "--set", "20"), "REASON_REQUIRED"),
        (("thresholds", "ORG", "--clear", "--why", " "), "REASON_REQUIRED"),
        (("thresholds", "ORG", "--rearm"), "REASON_REQUIRED"),
        (("thresholds", "ORG", "--set", "abc", "--why", "x"), "out of bounds: 'abc'"),
        (("thresholds", "ORG", "--set", "0", "--why", "x"), "INVALID_AMOUNT"),
        (("thresholds", "ORG", "--set", "1", "--clear", "--why", "x"), "one of --set, --clear"),
        (("auto-top-up", "nope"), "WALLET_NOT_FOUND: The organization has no wallet: nope"),
        (("auto-top-up", "ORG", "--off"), "REASON_REQUIRED"),
        (("auto-top-up", "ORG", "--off", "--why", "x"), "TOP_UP_NOT_SET"),
        (
            ("auto-top-up", "ORG", "--off", "--below", "3", "--why", "x"),
            "--off cannot be combined with terms",
        ),
        (("auto-top-up", "ORG", "--below", "3", "--why", "x"), "missing: --provider"),
        (("auto-top-up", "ORG", *TERMS), "REASON_REQUIRED"),
    ],
)
def test_invalid_input_is_refused_in_one_line_and_changes_nothing(
    run, organization_id, words, line
):
    given = [organization_id if word == "ORG" else word for word in words]
    code, out, err = run("wallet", *given)
    assert (code, out) == (1, "")
    assert err.startswith("holdfast: ")
    assert err.count("\n") == 1
    assert line in err
    assert data(run("wallet", "thresholds", organization_id, "--json")) == []
