"""`holdfast trigger`: its subcommands, with a sandbox and an ingress."""

from __future__ import annotations

import json

import pytest

from base.clock import wait_until
from db.models import CallHold, InboxEvent
from db.models.calls import Call
from domain.entitlement import spending_block
from local.ports import free_ports
from tests.sandbox.calling import api, order, read_call
from tests.support.processes import PROCESS_SECONDS

SUSPENDED = "BILLING.SUBSCRIPTION.SUSPENDED"
NUMBER = "+15005550123"


@pytest.fixture
def trigger(run, sandbox, processes, monkeypatch, tmp_path):
    """A function that runs `trigger … --json` and returns its output.

    The sandbox sends its webhooks to an ingress.
    """
    folder = tmp_path / "state" / "sandbox"
    folder.mkdir(parents=True)
    (folder / "sandbox.json").write_text(json.dumps(sandbox.info))
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))
    (port,) = free_ports(1)
    processes.ingress(port)
    before = sandbox.info.get("target", "")
    sandbox.control("POST", "/target", {"url": f"http://127.0.0.1:{port}"})

    def invoke(*arguments: str):
        code, out, err = run("trigger", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    yield invoke
    sandbox.control("POST", "/target", {"url": before})


@pytest.fixture
def line(trigger, world, run):
    """A customer with 50.00, a rate of 0.60 a minute, and a number from `trigger`."""
    customer = world.customer()
    made = trigger("vapi-number", NUMBER, "--subaccount", customer.sids[0])
    rate = ("call", "rate", "set", customer.id, "--per-minute", "0.60", "--increment", "60")
    assert run(*rate, "--why", "test")[0] == 0
    entry_point = (
        "call",
        "entry-point",
        "add",
        customer.id,
        "phone_number",
        made["phone_number_id"],
    )
    assert run(*entry_point, "--assistant", made["assistant_id"], "--why", "test")[0] == 0
    return customer, made


def test_trigger_paypal_sends_signed_events_that_close_an_organization(trigger, world):
    # Given a customer that may spend
    customer = world.customer()
    assert world.do(lambda session, now: spending_block(session, customer.id, now)) is None
    # When the same event is sent three times at once
    sent = trigger("paypal", SUSPENDED, "--org", customer.id, "--copies", "3")
    # Then it is accepted once, and each answer is shown
    assert [one["http_status"] for one in sent] == [200] * 3
    assert len({one["event_id"] for one in sent}) == 1
    assert sorted(one["answer"] for one in sent) == ["duplicate", "duplicate", "new"]
    (event,) = world.read(InboxEvent, external_id=sent[0]["event_id"])
    assert (event.source, event.event_type) == ("paypal", SUSPENDED)
    # And it takes away the organization's entitlement
    world.run_due()
    refusal = world.do(lambda session, now: spending_block(session, customer.id, now))
    assert refusal == "SUBSCRIPTION_INACTIVE"


def test_trigger_vapi_number_makes_a_number_with_its_assistant(trigger, world, sandbox):
    customer = world.customer()
    made = trigger("vapi-number", NUMBER, "--subaccount", customer.sids[0])
    # Then both can be named to `trigger vapi` and `call entry-point add`
    number = api(sandbox, "GET", f"/phone-number/{made['phone_number_id']}").json()
    assistant = api(sandbox, "GET", f"/assistant/{made['assistant_id']}").json()
    assert (number["number"], number["twilioAccountSid"]) == (NUMBER, customer.sids[0])
    assert assistant["name"] == NUMBER


def test_trigger_vapi_places_a_call_that_is_charged(trigger, line, world):
    customer, made = line
    # When a caller dials the number and talks for a second
    call = trigger("vapi", made["phone_number_id"], "--talk", "1")

    def settled() -> bool:
        world.run_due()
        found = world.read(Call, provider_call_id=call["provider_call_id"])
        return bool(found) and found[0].settled_at is not None

    # Then the call is admitted, ends, and costs one increment
    assert wait_until(settled, limit_seconds=PROCESS_SECONDS, every_seconds=0.2)
    (known,) = world.read(Call, provider_call_id=call["provider_call_id"])
    assert (known.organization_id, known.origin, known.cost_micros) == (
        customer.id,
        "admitted",
        600_000,
    )
    assert world.wallet(customer.id).balance_micros == 50_000_000 - 600_000
    assert [one.status for one in world.read(CallHold, call_id=known.id)] == ["committed"]


@pytest.mark.parametrize("deaf", [False, True])
def test_trigger_vapi_call_obeys_an_end_order_unless_deaf(trigger, line, sandbox, deaf):
    _, made = line
    call = {
        "id": trigger("vapi", made["phone_number_id"], *(["--deaf"] if deaf else []))[
            "provider_call_id"
        ]
    }
    talks = lambda: read_call(sandbox, call)["status"] == "in-progress"  # noqa: E731
    assert wait_until(talks, limit_seconds=PROCESS_SECONDS, every_seconds=0.1)
    # When it is ordered to end, then it ends unless it ignores the order
    answer = order(sandbox, read_call(sandbox, call), type="end-call")
    assert answer.status_code == 200
    if deaf:
        assert talks()
    else:
        assert wait_until(lambda: not talks(), limit_seconds=PROCESS_SECONDS, every_seconds=0.1)


def test_trigger_reports_what_the_sandbox_refuses(trigger, run):
    code, out, err = run("trigger", "vapi", "no-such-number")
    assert (code, out) == (1, "")
    assert err.startswith("holdfast: the sandbox refuses: ")
