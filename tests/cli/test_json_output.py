"""`--json`: every command that prints data has it, and its values are typed."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest
from typer.core import TyperGroup

from base.enums import CallDirection
from base.facts import AdmissionRequest
from cli.main import COMMANDS
from db.engine import clock
from domain.calls import admission, reservations
from domain.jobs import schedules
from tests.db.jobs.support import claim, fail, stage
from tests.db.redis.support import BULK, circuits, open_circuit
from tests.domain.support import subscribe

#: Commands without typed output: processes, programs with options of their own, and `migrate`,
#: whose only result is the revision that it prints.
WITHOUT_JSON = {"up", "ingress", "worker", "relay", "bench", "chaos", "test", "migrate"}
#: Commands that show data, with arguments. Those of `LISTS` print a list.
LISTS = {
    "action list": "",
    "org list": "",
    "campaign list": "",
    "alert list": "",
    "call list": "",
    "call costs": "",
    "call rate list": "ORG",
    "call entry-point list": "ORG",
    "wallet history": "ORG",
    "wallet thresholds": "ORG",
    "job list": "--state dead",
    "job policies": "",
    "jobs list": "--state dead",
    "jobs policies": "",
    "provider list": "",
    "schedule list": "",
    "worker list": "",
}
OBJECTS = {
    "org show": "ORG",
    "wallet show": "ORG",
    "wallet auto-top-up": "ORG",
    "call show": "v-1",
    "call terms show": "ORG",
    "job show": "JOB",
    "jobs show": "JOB",
    "verify ledger": "",
    "verify deployment": "",
    "sandbox info": "",
}
#: Commands that change something, with arguments, in this order.
CHANGES = {
    "org create": "Acme",
    "org add-brand": "ORG North",
    "org add-campaign": "BRAND Spring",
    "org enforce": "ORG --why x --wait 0",
    "campaign start": "CAMPAIGN --why x",
    "campaign pause": "CAMPAIGN --why x",
    "wallet freeze": "ORG --why x",
    "wallet override": "ORG --why x --reason manual --hours 1",
    "wallet unfreeze": "ORG --why x",
    "wallet correct": "ORG 1.25 --why x",
    "wallet debt-limit": "ORG 3 --why x",
    "wallet rebuild": "ORG --why x",
    "alert clear": "ALERT --why x",
    "call rate set": "ORG --per-minute 1 --why x",
    "call rate remove": "ORG default --why x",
    "call terms set": "ORG --margin-seconds 8 --why x",
    "call entry-point add": "ORG assistant a1 --why x",
    "call entry-point remove": "assistant a1 --why x",
    "call end": "visit-1 --why x",
    "call settle": "visit-1 --seconds 2 --why x",
    "job redrive": "JOB --why x",
    "job run-now": "--why x --yes",
    "job discard": "--why x --yes",
    "provider close-circuit": "twilio bulk --why x",
    "verify anchor": "FILE",
    "token": "--org ORG",
}
#: Tested in other files: with a sandbox, Twilio's stand-in or all processes.
ELSEWHERE = {
    *("trigger paypal", "trigger vapi", "trigger vapi-number", "reconcile twilio", "demo"),
    *("jobs redrive", "jobs run-now", "jobs discard"),
}
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def commands():
    """Return every command that can be run, by its full name."""
    found = {}
    for name, lazy in COMMANDS.items():
        found |= commands_of(name, lazy.load(name))
    return found


def commands_of(name, command):
    """Return a command, or all listed commands of a group, by their full names."""
    if not isinstance(command, TyperGroup):
        return {name: command}
    found = {name: command} if command.invoke_without_command else {}
    for key, one in command.commands.items():
        if not one.hidden:
            found |= commands_of(f"{name} {key}", one)
    return found


def values(data, key=""):
    """Yield every key with its value, at any depth."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield name, value
            yield from values(value, name)
    elif isinstance(data, list):
        for one in data:
            if not isinstance(one, dict):
                yield key, one
            yield from values(one, key)


def assert_typed(data):
    for name, value in values(data):
        assert SNAKE_CASE.fullmatch(name), name
        assert value not in ("", "none", "None", "-"), name
        if value is None:
            continue
        if name.endswith(("_micros", "_ms")):
            assert type(value) is int, name
        if name.endswith("_seconds"):
            assert isinstance(value, int | float), name
        if name.endswith(("_at", "_until")):
            assert datetime.fromisoformat(value).utcoffset() is not None, name
        if name.startswith(("is_", "may_")) or name in ("changed", "frozen", "consistent"):
            assert type(value) is bool, name


@pytest.fixture
def scene(run, database, redis_client, organization_id, sandbox, tmp_path, monkeypatch):
    """Rows of everything that commands show, and the ids that replace arguments."""
    state = tmp_path / "state" / "sandbox"
    state.mkdir(parents=True)
    (state / "sandbox.json").write_text(json.dumps(sandbox.info))
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LEDGER_ANCHOR_KEY", "a key")
    database.run(schedules.declare)
    job_id = stage(database, name="process_event", kwargs={"event_id": "evt_1"})
    fail(database, claim(database, job_id), retry=None)
    open_circuit(circuits(redis_client), BULK)

    def made(*command):
        code, out, err = run(*command)
        assert code == 0, err
        return out.strip()

    brand_id = made("org", "add-brand", organization_id, "South")
    campaign_id = made("org", "add-campaign", brand_id, "Winter")
    made("wallet", "thresholds", organization_id, "--set", "20", "--why", "x")
    made("call", "rate", "set", organization_id, "--per-minute", "0.60", "--why", "x")
    subscribe(database, organization_id)
    database.run(
        lambda session: reservations.reserve_for_call(
            session,
            organization_id,
            call_id="visit-1",
            provider_call_id=None,
            appointment_id=None,
            estimated_seconds=60,
            now=clock(session),
        )
    )
    made("wallet", "freeze", organization_id, "--why", "x")
    made("call", "entry-point", "add", organization_id, "phone_number", "n1", "--why", "x")
    ask = AdmissionRequest("v-1", CallDirection.INBOUND, None, "n1", None, "…0006", None, None)
    database.run(lambda session: admission.admit(session, ask, clock(session)))
    alerts = json.loads(made("alert", "list", "--json"))
    return {
        "ORG": organization_id,
        "BRAND": brand_id,
        "CAMPAIGN": campaign_id,
        "JOB": job_id,
        "ALERT": str(alerts[0]["alert_id"]),
        "FILE": str(tmp_path / "heads"),
    }


def test_every_command_that_prints_data_has_json():
    found = commands()
    with_json = {
        name
        for name, command in found.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert set(found) - with_json == WITHOUT_JSON
    # A new command must be listed here, so that its output is checked.
    assert with_json == {*LISTS, *OBJECTS, *CHANGES, *ELSEWHERE}


def test_commands_that_show_data_print_typed_json(run, scene):
    for command, arguments in (LISTS | OBJECTS).items():
        given = [scene.get(argument, argument) for argument in arguments.split()]
        code, out, err = run(*command.split(), *given, "--json")
        # The test's servers lack settings that a deployment has, which is a finding.
        assert code == (command == "verify deployment"), (command, err)
        data = json.loads(out)
        assert isinstance(data, list if command in LISTS else dict), command
        assert_typed(data)


def test_commands_that_change_something_print_one_object(run, scene):
    for command, arguments in CHANGES.items():
        given = [scene.get(argument, argument) for argument in arguments.split()]
        code, out, err = run(*command.split(), *given, "--json")
        assert code == 0, (command, err)
        data = json.loads(out)
        assert isinstance(data, dict), command
        assert "action" in data or command in ("token", "alert clear"), command
        assert_typed(data)


@pytest.mark.parametrize("command", ["org list", "alert list", "job list --state dead"])
def test_table_in_a_pipe_is_one_line_per_row(run, scene, command):
    rows = json.loads(run(*command.split(), "--json")[1])
    heading, *lines = run(*command.split())[1].splitlines()
    assert len(lines) == len(rows) > 0
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(str(next(iter(row.values()))))
    assert "│" not in heading
