"""`holdfast verify`: its output for an intact ledger, and for a damaged one."""

from __future__ import annotations

import json
from functools import partial

import psycopg
import pytest

from db.address import driver_url
from tests.support.world import fund, make_organization

TAIL = "without --heads, entries removed at a wallet's end cannot be detected\n"


@pytest.fixture
def run(run, monkeypatch):
    """A function that runs `verify`."""
    monkeypatch.setenv("LEDGER_ANCHOR_KEY", "a key")
    return partial(run, "verify")


@pytest.fixture
def org(database):
    """An organization with three entries: its opening and two credits."""
    organization_id = make_organization(database, micros=5_000_000)
    fund(database, organization_id, 1_000_000)
    return organization_id


@pytest.fixture
def tamper(urls):
    """A function that changes the ledger as a superuser, without any constraint."""

    def change(*statements: str):
        with psycopg.connect(driver_url(urls.owner_url)) as superuser:
            superuser.execute("SET session_replication_role = replica")
            for statement in statements:
                superuser.execute(statement)

    return change


CUT = (
    "DELETE FROM wallet_entries WHERE entry_no = 2",
    "UPDATE wallets SET entry_no = 1, balance_micros = 5000000,"
    " head_hash = (SELECT hash FROM wallet_entries WHERE entry_no = 1)",
)


def test_intact_ledger_prints_one_line_and_a_note_without_heads(run, database, org):
    make_organization(database)
    assert run("ledger") == (0, f"verify: 2 wallets, 4 entries, 0 findings\n{TAIL}", "")
    assert run("ledger", "--org", org)[1].startswith("verify: 1 wallets, 3 entries, 0 findings")


def test_each_finding_is_one_line_and_the_exit_status_is_1(run, tamper, org):
    tamper("UPDATE wallets SET held_micros = 7", "UPDATE wallets SET debt_limit_micros = 9")
    code, out, _ = run("ledger")
    assert code == 1
    assert out.splitlines() == [
        f"{org} entry 2: wallet's held: expected 0, found 7",
        f"{org} entry 2: wallet's debt limit: expected 0, found 9",
        "verify: 1 wallets, 3 entries, 2 findings",
        TAIL.strip(),
    ]


def test_findings_are_printed_as_json(run, tamper, org):
    assert json.loads(run("ledger", "--json")[1])["findings"] == []
    tamper("DELETE FROM wallet_entries WHERE entry_no = 1")
    code, out, _ = run("ledger", "--json")
    assert code == 1
    printed = json.loads(out)
    assert (printed["wallets"], printed["entries"], printed["tail_checked"]) == (1, 2, False)
    assert printed["findings"][0] == {
        "organization_id": org,
        "entry_no": 1,
        "what": "entry missing",
        "expected": "entry 1",
        "found": "entry 2",
    }
    assert len(printed["findings"]) == 2


def test_cut_tail_is_found_with_the_anchored_heads(run, tamper, org, tmp_path):
    # Given anchored heads, and an entry that is removed afterwards
    file = tmp_path / "heads"
    code, out, _ = run("anchor", str(file))
    assert (code, out.split(" at ")[0]) == (0, "anchored 1 wallets")
    assert run("ledger", "--heads", str(file))[:2] == (
        0,
        "verify: 1 wallets, 3 entries, 0 findings\n",
    )
    tamper(*CUT)
    # Then the ledger agrees with itself, but not with the anchored head
    assert run("ledger")[0] == 0
    code, out, _ = run("ledger", "--heads", str(file))
    assert code == 1
    assert f"{org} entry 2: anchored hash: expected" in out
    assert "found nothing after entry 1" in out
    assert TAIL not in out


@pytest.mark.parametrize("command", ["anchor", "ledger --heads"])
def test_missing_key_is_reported_in_one_line_by_both_commands(run, monkeypatch, tmp_path, command):
    monkeypatch.delenv("LEDGER_ANCHOR_KEY")
    (tmp_path / "heads").touch()
    code, out, err = run(*command.split(), str(tmp_path / "heads"))
    assert (code, out, err) == (2, "", "holdfast: missing setting: LEDGER_ANCHOR_KEY\n")
    assert (tmp_path / "heads").read_bytes() == b""


def test_file_of_another_key_or_changed_is_refused_in_one_line(run, org, monkeypatch, tmp_path):
    file = tmp_path / "heads"
    run("anchor", str(file))
    title = "HEADS_REFUSED: The file of chain heads cannot be trusted"
    line = f"holdfast: {title}: the file was signed with another key, or changed since\n"
    # Given another key
    monkeypatch.setenv("LEDGER_ANCHOR_KEY", "another key")
    assert run("ledger", "--heads", str(file)) == (1, "", line)
    # Given the right key and a changed file
    monkeypatch.setenv("LEDGER_ANCHOR_KEY", "a key")
    file.write_bytes(file.read_bytes().replace(b'"entry_no":2', b'"entry_no":1'))
    assert run("ledger", "--heads", str(file)) == (1, "", line)


def test_heads_name_the_file_when_it_is_empty(run, org, tmp_path):
    file = tmp_path / "heads"
    file.touch()
    title = "HEADS_REFUSED: The file of chain heads cannot be trusted"
    line = f"holdfast: {title}: the file is empty\n"
    assert run("ledger", "--heads", str(file)) == (1, "", line)


def test_unusable_file_is_reported_in_one_line(run, org, tmp_path):
    missing = tmp_path / "no" / "heads"
    code, out, err = run("ledger", "--heads", str(missing))
    assert (code, out, err) == (
        1,
        "",
        f"holdfast: cannot read {missing}: No such file or directory\n",
    )
    code, out, err = run("anchor", str(missing))
    assert (code, out, err) == (
        1,
        "",
        f"holdfast: cannot write {missing}: No such file or directory\n",
    )


def test_unknown_organization_is_reported_in_one_line(run):
    line = "holdfast: WALLET_NOT_FOUND: The organization has no wallet: org_no\n"
    assert run("ledger", "--org", "org_no") == (1, "", line)


def test_key_is_never_shown(run, org, tmp_path):
    file = tmp_path / "heads"
    printed = [*run("anchor", str(file)), *run("ledger", "--heads", str(file))]
    assert not any("a key" in str(one) for one in [*printed, file.read_text()])


def test_deployment_defects_are_listed_one_by_one(run, urls):
    with psycopg.connect(driver_url(urls.owner_url), autocommit=True) as superuser:
        superuser.execute("DROP INDEX call_holds_open")
    code, out, _ = run("deployment")
    assert code == 1
    assert "index call_holds_open: missing" in out.splitlines()
    code, out, _ = run("deployment", "--json")
    printed = json.loads(out)["defects"]
    assert {"subject": "index call_holds_open", "found": "missing"} in printed
    assert (code, run("deployment")[1].splitlines()[-1].split(", ")[1]) == (
        1,
        f"{len(printed)} defects",
    )
