"""Automatic top-up by command: output and refusals."""

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

PAYPAL = frozenset({Provider.PAYPAL})
TERMS = (
    *("--provider", "paypal", "--payment-method", "card-1"),
    *("--below", "20", "--amount", "50", "--day-cap", "100"),
)


def data(answer):
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def test_automatic_top_up_is_refused_while_no_provider_can_charge(run, organization_id):
    command = ("wallet", "auto-top-up", organization_id)
    code, out, err = run(*command, *TERMS, "--why", "asked")
    assert (code, out) == (1, "")
    title = "The provider cannot charge a stored payment method"
    assert err == f"holdfast: CANNOT_CHARGE: {title}: paypal\n"
    assert data(run(*command, "--json"))["state"] == "never_set"


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
    command = ("wallet", "auto-top-up", organization_id)
    shown = data(run(*command, "--json"))
    assert (shown["state"], shown["crossed_at"] is not None) == ("crossed", True)
    assert (shown["below_micros"], shown["amount_micros"]) == (20_000_000, 50_000_000)
    assert (shown["day_cap_micros"], shown["day_count_max"]) == (100_000_000, 3)
    (decision,) = shown["decisions"]
    assert (decision["amount_micros"], decision["state"]) == (50_000_000, "decided")
    assert "50.00 USD  decided" in run(*command)[1]
    # When the charge is declined and automatic top-up is switched off
    database.run(
        lambda session: top_up_charges.record_declined(
            session, decision["decision_id"], "no funds", clock(session)
        )
    )
    shown = data(run(*command, "--off", "--why", "asked", "--by", "bob", "--json"))
    assert (shown["state"], shown["set_by"]) == ("off", "bob")
    (decision,) = shown["decisions"]
    assert (decision["state"], decision["decline_code"]) == ("declined", "no funds")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nope",), "WALLET_NOT_FOUND: The organization has no wallet: nope"),
        (("ORG", "--off"), "REASON_REQUIRED"),
        (("ORG", "--off", "--why", "x"), "TOP_UP_NOT_SET"),
        (
            ("ORG", "--off", "--below", "3", "--why", "x"),
            "--off cannot be combined with terms",
        ),
        (("ORG", "--below", "3", "--why", "x"), "missing: --provider"),
        (("ORG", *TERMS), "REASON_REQUIRED"),
    ],
)
def test_invalid_top_up_input_is_refused_in_one_line(run, organization_id, arguments, line):
    given = [organization_id if one == "ORG" else one for one in arguments]
    code, out, err = run("wallet", "auto-top-up", *given)
    assert (code, out) == (1, "")
    assert err.startswith("holdfast: ")
    assert err.count("\n") == 1
    assert line in err
    assert data(run("wallet", "auto-top-up", organization_id, "--json"))["state"] == "never_set"
