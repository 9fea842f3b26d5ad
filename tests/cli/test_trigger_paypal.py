"""`trigger`: what it has the sandbox send, and what it refuses before sending."""

from __future__ import annotations

import json

import pytest

from base.facts import OtherReport
from cli.commands.triggers import PAYPAL_EVENTS
from providers.paypal.events import parse

COMPLETED = "PAYMENT.CAPTURE.COMPLETED"
MALFORMED = "INVALID_AMOUNT: The amount is malformed or out of bounds"
RESOLVED = "CUSTOMER.DISPUTE.RESOLVED"


@pytest.fixture
def run(run, sandbox, monkeypatch, tmp_path):
    """Runs the command with the test's sandbox, whose webhooks have no receiver."""
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "sandbox.json").write_text(json.dumps(sandbox.info))
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path))
    return run


@pytest.fixture
def trigger(run, organization_id, sandbox):
    """A function that runs `trigger paypal` and returns the body of the event sent."""

    def send(event: str, *options: str) -> bytes:
        arguments = ("trigger", "paypal", event, "--org", organization_id, *options, "--json")
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        (delivery,) = json.loads(out)
        sent = sandbox.control("GET", f"/paypal/events/{delivery['event_id']}")
        return sent["body"].encode()

    return send


def events(sandbox) -> set[str]:
    """List the events sent so far. Those that were not accepted are sent again."""
    return {one["event_id"] for one in sandbox.control("GET", "/deliveries")}


def resource(body: bytes) -> dict:
    return json.loads(body)["resource"]


def test_trigger_makes_a_new_capture_for_each_completed_payment(trigger, sandbox):
    first, second = resource(trigger(COMPLETED)), resource(trigger(COMPLETED))
    assert first["id"] != second["id"]
    assert second["amount"] == {"currency_code": "USD", "value": "49.00"}
    captures = sandbox.control("GET", "/paypal/captures")
    assert [one["id"] for one in captures] == [first["id"], second["id"]]


def test_trigger_repeats_the_newest_capture_when_asked(trigger):
    trigger(COMPLETED)
    newest = resource(trigger(COMPLETED))
    assert resource(trigger(COMPLETED, "--again"))["id"] == newest["id"]


def test_trigger_completes_the_pending_capture_and_no_other(trigger):
    trigger(COMPLETED)
    pending = resource(trigger("PAYMENT.CAPTURE.PENDING"))
    done = resource(trigger(COMPLETED))
    assert (done["id"], done["status"]) == (pending["id"], "COMPLETED")
    assert resource(trigger("PAYMENT.CAPTURE.PENDING"))["id"] != pending["id"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), "RESOLVED_BUYER_FAVOUR"),
        (("--outcome", "lost"), "RESOLVED_BUYER_FAVOUR"),
        (("--outcome", "won"), "RESOLVED_SELLER_FAVOUR"),
    ],
)
def test_trigger_resolves_the_open_dispute_as_asked(trigger, options, code):
    # Given a disputed payment, and a later one
    disputed = resource(trigger(COMPLETED))
    opened = resource(trigger("CUSTOMER.DISPUTE.CREATED"))
    trigger(COMPLETED)
    # When the dispute is resolved
    ended = resource(trigger(RESOLVED, *options))
    # Then it is the same dispute, with that outcome
    assert ended["dispute_id"] == opened["dispute_id"]
    about = [one["seller_transaction_id"] for one in ended["disputed_transactions"]]
    assert about == [disputed["id"]]
    assert (ended["status"], ended["dispute_outcome"]["outcome_code"]) == ("RESOLVED", code)


def test_trigger_takes_an_amount_for_payments_refunds_and_disputes(trigger):
    paid = resource(trigger(COMPLETED, "--amount", "12.5"))
    assert paid["amount"] == {"currency_code": "USD", "value": "12.50"}
    disputed = resource(trigger("CUSTOMER.DISPUTE.CREATED", "--amount", "2"))
    assert disputed["dispute_amount"] == {"currency_code": "USD", "value": "2.00"}
    part = resource(trigger("PAYMENT.CAPTURE.REFUNDED", "--amount", "0.01"))
    assert part["amount"]["value"] == "0.01"
    # Without an amount, a refund is of all that is left
    assert resource(trigger("PAYMENT.CAPTURE.REFUNDED"))["amount"]["value"] == "12.49"


@pytest.mark.parametrize(
    ("currency", "amount", "value"),
    [("EUR", "7", "7.00"), ("JPY", "500.0", "500"), ("JPY", "", "49")],
)
def test_trigger_pays_in_the_currency_of_the_wallet(run, sandbox, currency, amount, value):
    organization_id = run("org", "create", "Acme", "--currency", currency)[1].strip()
    options = ("--amount", amount) if amount else ()
    code, _, err = run("trigger", "paypal", COMPLETED, "--org", organization_id, *options)
    assert (code, err) == (0, "")
    (paid,) = sandbox.control("GET", "/paypal/captures")
    assert paid["amount"] == {"currency_code": currency, "value": value}


@pytest.mark.parametrize(
    ("event", "amount", "line"),
    [
        (COMPLETED, "0", "--amount must be more than zero, and is 0"),
        (COMPLETED, "-1", "--amount must be more than zero, and is -1"),
        (COMPLETED, "1.005", "INVALID_AMOUNT: "),
        (COMPLETED, "ten", f"{MALFORMED}: 'ten' is not a plain decimal"),
        (COMPLETED, "1e3", f"{MALFORMED}: '1e3' is not a plain decimal"),
        (
            "PAYMENT.CAPTURE.REFUNDED",
            "10.01",
            "the sandbox refuses: 10.01 cannot be refunded: 10.00 is left of the payment",
        ),
        (
            "CUSTOMER.DISPUTE.CREATED",
            "10.01",
            "the sandbox refuses: 10.01 cannot be disputed: 10.00 was paid",
        ),
        (RESOLVED, "1", "--amount is for payments, refunds and new disputes only"),
    ],
)
def test_trigger_refuses_a_wrong_amount_in_a_line_and_changes_nothing(
    run, trigger, organization_id, sandbox, event, amount, line
):
    # Given a payment of 10.00
    trigger(COMPLETED, "--amount", "10")
    (before,) = sandbox.control("GET", "/paypal/captures")
    sent = events(sandbox)
    # When an event with a wrong amount is requested
    code, out, err = run("trigger", "paypal", event, "--org", organization_id, "--amount", amount)
    # Then the command says what is wrong, and nothing is changed or sent
    assert (code, out) == (1, "")
    assert err.startswith(f"holdfast: {line}")
    assert err.count("\n") == 1
    assert sandbox.control("GET", "/paypal/captures") == [before]
    assert events(sandbox) == sent


def test_trigger_refuses_an_amount_for_a_payment_that_has_one(run, trigger, organization_id):
    trigger("PAYMENT.CAPTURE.PENDING")
    for option, line in (
        (
            "--copies=1",
            "the sandbox refuses: the event ends the pending payment, which has an amount",
        ),
        ("--again", "--again repeats a payment with its amount; leave out --amount"),
    ):
        arguments = (
            "trigger",
            "paypal",
            COMPLETED,
            "--org",
            organization_id,
            "--amount",
            "5",
            option,
        )
        assert run(*arguments) == (1, "", f"holdfast: {line}\n")


@pytest.mark.parametrize("event", PAYPAL_EVENTS)
def test_trigger_sends_each_listed_event_in_a_form_that_we_read(trigger, event):
    body = trigger(event)
    assert json.loads(body)["event_type"] == event
    assert not isinstance(parse(body), OtherReport)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("BILLING.SUBSCRIPTION.ACTIVATED", "--org", "org_nope"), "ORGANIZATION_NOT_FOUND"),
        ((COMPLETED, "--org", "ORG", "--outcome", "won"), f"--outcome is for {RESOLVED} only"),
        (("PAYMENT.NOPE", "--org", "ORG"), "unknown event 'PAYMENT.NOPE'; there are BILLING."),
    ],
)
def test_trigger_sends_nothing_when_it_refuses(run, organization_id, sandbox, arguments, line):
    given = [organization_id if argument == "ORG" else argument for argument in arguments]
    code, out, err = run("trigger", "paypal", *given)
    assert (code, out) == (1, "")
    assert line in err
    assert sandbox.control("GET", "/deliveries") == []
    assert sandbox.control("GET", "/paypal/subscriptions") == []
    assert sandbox.control("GET", "/paypal/captures") == []


def test_trigger_lists_the_events_in_its_help_and_its_refusal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    printed = run("trigger", "paypal", "--help")[1]
    refusal = run("trigger", "paypal", "nope", "--org", "x")[2]
    for event in PAYPAL_EVENTS:
        assert event in printed
        assert event in refusal


def test_trigger_names_vapi_number_when_the_number_is_unknown(run):
    code, out, err = run("trigger", "vapi", "no-such-number")
    assert (code, out) == (1, "")
    assert err == (
        "holdfast: the sandbox refuses: no such number;"
        " `trigger vapi-number +15005550123` makes one and prints its id\n"
    )


def test_trigger_names_the_field_when_the_sandbox_does_not_take_it(run):
    err = run("trigger", "vapi-number", "12")[2]
    assert err.startswith("holdfast: the sandbox refuses: not understood; number: ")
