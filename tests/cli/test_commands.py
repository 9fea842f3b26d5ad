"""The holdfast command on a real database: what it prints, and how it refuses."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from base.operators import Operator
from base.settings import Settings
from db.address import driver_url
from db.models import OperatorAction
from domain import operator_actions
from local import ROOT
from tests.support.world import fund


def test_organization_is_created_with_brand_and_campaign_and_shown(run):
    # Given an organization with a brand and a campaign, made by commands
    _, out, _ = run("org", "create", "Acme", "--currency", "JPY")
    organization_id = out.strip()
    _, brand, _ = run("org", "add-brand", organization_id, "North")
    _, campaign, _ = run("org", "add-campaign", brand.strip(), "Spring")
    assert run("campaign", "start", campaign.strip(), "--why", "go")[0] == 0

    # When it is shown as data
    _, out, _ = run("org", "show", organization_id, "--json")

    # Then it may not spend, and its campaign shows why it is paused
    shown = json.loads(out)
    assert (shown["may_spend"], shown["block_reason"]) == (False, "SUBSCRIPTION_INACTIVE")
    assert shown["campaigns"][0]["pause_reason"] == "subscription_inactive"
    # And any other reason that stops it is shown too
    assert run("wallet", "freeze", organization_id, "--why", "asked")[0] == 0
    shown = json.loads(run("org", "show", organization_id, "--json")[1])
    assert (shown["available_micros"], shown["currency"]) == (0, "JPY")
    assert {one["reason"] for one in shown["freezes"]} == {"manual", "subscription_inactive"}
    assert organization_id in run("org", "list")[1]


def test_wallet_is_shown_with_exact_figures(run, organization_id):
    _, out, _ = run("wallet", "show", organization_id, "--json")
    shown = json.loads(out)
    figures = ("balance_micros", "held_micros", "available_micros", "outstanding_micros")
    assert [shown[name] for name in figures] == [5_000_000, 0, 5_000_000, 0]
    assert (shown["currency"], shown["consistent"]) == ("USD", True)
    assert "balance          5.00 USD\n" in run("wallet", "show", organization_id)[1]


def test_manual_freeze_is_placed_and_lifted_with_operator_and_reason(run, organization_id):
    assert run("wallet", "freeze", organization_id, "--why", "fraud", "--by", "ann")[0] == 0
    frozen = json.loads(run("wallet", "show", organization_id, "--json")[1])
    (placed,) = [one for one in frozen["freezes"] if one["reason"] == "manual"]
    assert (placed["placed_by"], placed["note"]) == ("ann", "fraud")
    assert run("wallet", "unfreeze", organization_id, "--why", "cleared", "--by", "ann")[0] == 0
    history = run("wallet", "history", organization_id)[1]
    assert "ann: fraud" in history
    assert "ann: cleared" in history


def test_override_allows_spending_while_a_freeze_is_active(run, organization_id):
    run("wallet", "freeze", organization_id, "--why", "fraud")
    options = ("--reason", "manual", "--hours", "1", "--why", "customer calls")
    assert run("wallet", "override", organization_id, *options)[0] == 0
    shown = json.loads(run("wallet", "show", organization_id, "--json")[1])
    (placed,) = [one for one in shown["freezes"] if one["reason"] == "manual"]
    assert (placed["note"], placed["override_note"]) == ("fraud", "customer calls")
    assert datetime.fromisoformat(placed["override_until"]) > datetime.now(UTC)


def test_correction_is_an_entry_and_safe_to_repeat_under_its_key(run, organization_id):
    arguments = ("wallet", "correct", organization_id, "1.25", "--why", "goodwill", "--key", "k1")
    assert run(*arguments)[1] == "wrote entry 2\n"
    assert run(*arguments)[1] == "replay of entry 2\n"
    shown = json.loads(run("wallet", "show", organization_id, "--json")[1])
    assert shown["balance_micros"] == 6_250_000


def test_history_is_exported_whole_as_csv_and_as_jsonl(run, organization_id):
    rows = list(
        csv.DictReader(io.StringIO(run("wallet", "history", organization_id, "--format", "csv")[1]))
    )
    lines = [
        json.loads(line)
        for line in run("wallet", "history", organization_id, "--format", "jsonl")[1].splitlines()
    ]
    assert [row["amount_micros"] for row in rows] == ["5000000", "0"]
    assert [line["amount_micros"] for line in lines] == [5_000_000, 0]


def test_history_is_shown_with_the_decimals_of_its_currency(run):
    _, out, _ = run("org", "create", "Acme", "--currency", "JPY")
    organization_id = out.strip()
    for amount in ("120", "-20.000001"):
        assert run("wallet", "correct", organization_id, amount, "--why", "x")[0] == 0
    printed = run("wallet", "history", organization_id)[1]
    debit, credit = [line for line in printed.splitlines() if "BALANCE_CORRECTION" in line]
    assert re.search(r"debit +20.000001 JPY +99.999999 JPY", debit)
    assert re.search(r"credit +120 JPY +120 JPY", credit)
    kind = ("--kind", "BALANCE_CORRECTION")
    rows = json.loads(run("wallet", "history", organization_id, "--json", *kind)[1])
    assert [(row["direction"], row["amount_micros"]) for row in rows] == [
        ("debit", 20_000_001),
        ("credit", 120_000_000),
    ]


def test_instant_without_a_zone_is_utc_for_every_role(run, urls, organization_id):
    # Given connections whose time zone is far from UTC, and an entry written just now
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as owner:
        name = sql.Identifier(owner.info.dbname)
        far = "ALTER ROLE holdfast_app IN DATABASE {} SET timezone = 'Etc/GMT-14'"
        owner.execute(sql.SQL(far).format(name))
        ((instant,),) = owner.execute("SELECT created_at FROM wallet_entries WHERE entry_no = 1")

    # When the second in which the entry was written is requested
    second = instant.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    arguments = ("wallet", "history", organization_id, "--format", "jsonl")
    span = ("--since", second.isoformat(), "--until", (second + timedelta(seconds=1)).isoformat())

    # Then the entry is found, and not before that second
    assert 1 in [json.loads(line)["entry_no"] for line in run(*arguments, *span)[1].splitlines()]
    assert run(*arguments, "--until", (second - timedelta(hours=1)).isoformat())[1] == ""


def test_broken_wallet_row_is_rebuilt_from_its_entries(run, urls, organization_id):
    # Given a row that was changed around all constraints and triggers
    with psycopg.connect(driver_url(urls.owner_url)) as superuser:
        superuser.execute("SET session_replication_role = replica")
        superuser.execute("UPDATE wallets SET balance_micros = 9000000")
    assert json.loads(run("wallet", "show", organization_id, "--json")[1])["consistent"] is False

    # When it is rebuilt, then it equals its entries, and a new entry records the repair
    assert run("wallet", "rebuild", organization_id, "--why", "broken")[0] == 0
    shown = json.loads(run("wallet", "show", organization_id, "--json")[1])
    assert (shown["balance_micros"], shown["consistent"]) == (5_000_000, True)
    assert shown["entries"] == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("wallet", "show", "nope"), "WALLET_NOT_FOUND: The organization has no wallet: nope"),
        (
            ("wallet", "correct", "ORG", "abc", "--why", "x"),
            "INVALID_AMOUNT: The amount is malformed or out of bounds: 'abc'",
        ),
        (("wallet", "correct", "ORG", "0.0000001", "--why", "x"), "INVALID_AMOUNT"),
        (("wallet", "correct", "ORG", "-6", "--why", "x"), "INSUFFICIENT_FUNDS"),
        (("wallet", "freeze", "ORG", "--why", " "), "REASON_REQUIRED"),
        (
            ("wallet", "unfreeze", "ORG", "--why", "x"),
            "FREEZE_NOT_FOUND: The wallet has no active freeze with this reason: manual",
        ),
        (("wallet", "history", "ORG", "--format", "xml"), "--format is table, csv or jsonl"),
        (("wallet", "history", "ORG", "--format", "csv", "--json"), "--json prints one page"),
        (
            ("org", "show", "nope"),
            "ORGANIZATION_NOT_FOUND: There is no organization with this id: nope",
        ),
        (("org", "create", ""), "INVALID_NAME"),
        (("org", "create", "X", "--currency", "ABC"), "unknown currency 'ABC'"),
        (
            ("org", "add-brand", "ORG", "B", "--subaccount", "nope"),
            "INVALID_SUBACCOUNT: The SID is not a subaccount's, or another brand has it: nope",
        ),
        (
            ("org", "add-campaign", "nope", "C"),
            "BRAND_NOT_FOUND: There is no brand with this id: nope",
        ),
        (
            ("campaign", "pause", "nope", "--why", "x"),
            "CAMPAIGN_NOT_FOUND: There is no campaign with this id: nope",
        ),
        (("campaign", "start", "nope", "--why", " "), "REASON_REQUIRED"),
        (("org", "enforce", "ORG", "--why", ""), "REASON_REQUIRED"),
        (
            ("org", "enforce", "nope", "--why", "x"),
            "ORGANIZATION_NOT_FOUND: There is no organization with this id: nope",
        ),
        (("job", "list", "--state", "odd"), "--state is one of"),
        (("job", "list", "--argument", "odd"), "--argument must be NAME=VALUE"),
        (("job", "list", "--state", "done", "--error", "x"), "UNBOUNDED_SEARCH"),
        (("job", "show", "nope"), "no such job: nope"),
        (
            ("job", "redrive", "nope", "--why", "x"),
            "does not allow this operation: nope is neither dead nor",
        ),
        (("job", "redrive", "--state", "done", "--why", "x"), "--state is dead or refused"),
        (("job", "discard", "nope", "--why", " "), "REASON_REQUIRED"),
        (("migrate", "nope"), "Can't locate revision"),
    ],
)
def test_invalid_input_is_refused_in_one_line_and_changes_nothing(
    run, database, organization_id, arguments, line
):
    given = [organization_id if argument == "ORG" else argument for argument in arguments]
    code, out, err = run(*given)
    assert code == 1
    assert out == ""
    printed = [row for row in err.splitlines() if not row.startswith("key ")]
    assert printed == [printed[0]]
    assert printed[0].startswith("holdfast: ")
    assert line in printed[0]
    fund(database, organization_id, 1)  # Nothing holds a lock, and the wallet still works.


def test_trigger_explains_how_to_start_a_missing_sandbox(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path))
    code, _, err = run("trigger", "paypal", "BILLING.SUBSCRIPTION.CANCELLED", "--org", "x")
    assert (code, err) == (2, "holdfast: no sandbox runs here; start one: holdfast up --sandbox\n")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("bench", ["--rounds", "--seconds", "--json", "hot_wallet"]),
        ("chaos", ["--seconds", "--seed", "--sabotage", "--rest-seconds", "--json", "--keep"]),
    ],
)
def test_help_lists_the_options_of_a_command_with_its_own_parser(command, options):
    argv = [sys.executable, "-m", "cli.main", command, "--help"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: holdfast {command} ")
    assert [one for one in options if one not in done.stdout] == []


def test_manual_pause_by_command_is_never_resumed_by_the_system(run, world):
    customer = world.customer()
    arguments = ("campaign", "pause", customer.campaign_ids[0], "--why", "complaint", "--by", "ann")
    assert run(*arguments)[0] == 0
    world.do(
        lambda session, now: operator_actions.freeze_manually(
            session, customer.id, operator=Operator("t", "t"), now=now
        )
    )
    world.do(
        lambda session, now: operator_actions.lift_manually(
            session, customer.id, "manual", operator=Operator("t", "t"), now=now
        )
    )
    assert world.campaign(customer.campaign_ids[0]).pause_reason == "manual_pause"
    assert world.campaign(customer.campaign_ids[1]).status == "running"
    (noted,) = world.read(OperatorAction, subject=customer.campaign_ids[0])
    assert (noted.act, noted.operator, noted.why) == ("campaign.pause", "ann", "complaint")


def test_org_enforce_records_operator_and_reason(run, database, organization_id):
    arguments = ("org", "enforce", organization_id, "--why", "to be sure", "--by", "ann")
    assert run(*arguments)[1].startswith("subscription ")
    (noted,) = database.run(
        lambda s: s.query(OperatorAction).filter_by(subject=organization_id).all()
    )
    assert (noted.act, noted.operator, noted.why) == ("organization.enforce", "ann", "to be sure")


def test_readme_names_every_setting():
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", (ROOT / "README.md").read_text()))
    assert {name.upper() for name in Settings.model_fields} <= named
