"""The README's tour, as printed: twice, and again after a stop and a kill."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pytest
from typer.testing import CliRunner

from base.clock import wait_until
from cli.main import app
from local import ROOT
from tests.support.servers import server_folder
from tests.support.up import Up

#: Seconds within which an event must have its effect, also on a busy machine.
_EFFECT_SECONDS = 60.0
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

README = (ROOT / "README.md").read_text()

#: Part of a line of the tour, and what is true soon after it. The parts are in the tour's order.
STORY = [
    ("COMPLETED --org $ORG", {"available_micros": 49_000_000}),
    ("ACTIVATED", {"may_spend": True}),
    ("COMPLETED --org $ORG --amount 20", {"available_micros": 69_000_000}),
    ("DISPUTE.CREATED", {"available_micros": 49_000_000, "freezes": ["dispute"]}),
    (
        "SUSPENDED",
        {
            "may_spend": False,
            "block_reason": "SUBSCRIPTION_INACTIVE",
            "freezes": ["dispute", "subscription_inactive"],
        },
    ),
    ("--outcome won", {"available_micros": 69_000_000, "freezes": ["subscription_inactive"]}),
    ("ACTIVATED", {"may_spend": True, "block_reason": None, "freezes": []}),
]


def readme_lines() -> list[str]:
    """List the commands of the tour, without `up`, each as a line to type."""
    section = README.partition("\n## Run it\n")[2]
    tour = section.partition("`holdfast --help` lists every command")[0]
    first, *lines = [line.strip() for line in tour.splitlines() if line.startswith("    ")]
    assert first == "./run up --sandbox"
    return lines


def invoke(*arguments: str) -> str:
    """Run a command, which must succeed, and return what it prints."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert (done.exit_code, done.stderr) == (0, ""), (arguments, done.output)
    return done.stdout


def read(*arguments: str):
    return json.loads(invoke(*arguments, "--json"))


def wait_for(what: Callable[[], bool], shown: Callable[[], object]) -> None:
    assert wait_until(what, limit_seconds=_EFFECT_SECONDS, every_seconds=0.2), shown()


@dataclass
class Tour:
    """One person's way through the tour: variables, and ids to write in its lines."""

    known: dict[str, str] = field(default_factory=dict)

    @property
    def org(self) -> str:
        return self.known["$ORG"]

    def follow(self) -> None:
        """Type every line, and check what it has done."""
        left = list(STORY)
        for line in readme_lines():
            printed = self.type(line)
            if left and left[0][0] in line:
                self.wait_until_true(left.pop(0)[1])
            self.check(line, printed)
        assert left == []

    def type(self, line: str) -> str:
        assignment = re.fullmatch(r"(\w+)=\$\((.+)\)", line)
        arguments = shlex.split(assignment[2] if assignment else line, comments=True)
        assert arguments.pop(0) == "./run"
        printed = invoke(*(self.known.get(argument, argument) for argument in arguments))
        if assignment:
            self.known[f"${assignment[1]}"] = printed.strip()
        return printed

    def wait_until_true(self, expected: dict[str, object]) -> None:
        def now() -> dict[str, object]:
            shown = read("org", "show", self.org)
            shown["freezes"] = [one["reason"] for one in shown["freezes"]]
            return {name: shown[name] for name in expected}

        wait_for(lambda: now() == expected, now)

    def check(self, line: str, printed: str) -> None:
        if "wallet show" in line:
            wallet = read("wallet", "show", self.org)
            whole, part = divmod(wallet["balance_micros"], 1_000_000)
            assert re.search(rf"^balance +{whole}\.{part // 10_000:02} USD$", printed, re.MULTILINE)
            assert wallet["consistent"] is True
        elif "vapi-number" in line:
            self.known["NUMBER"], self.known["ASSISTANT"] = _ID.findall(printed)
        elif "trigger vapi NUMBER" in line:
            self.wait_until_connected(line)
        elif "call end" in line:
            self.wait_until_charged()
            assert self.charged() == 69_000_000 - read("wallet", "show", self.org)["balance_micros"]

    def wait_until_connected(self, line: str) -> None:
        """Wait for the call that the line has placed.

        On a busy machine it may be answered too late, and is refused. It is then placed again.
        """
        before = self.known.get("CALL")

        def is_connected() -> bool:
            found = [one for one in read("call", "list") if one["organization_id"] == self.org]
            self.known["CALL"] = found[0]["call_id"] if found else ""
            return any(
                one["call_id"] != before and one["status"] == "in_progress" for one in found[:1]
            )

        for _ in range(5):
            if wait_until(is_connected, limit_seconds=12, every_seconds=0.2):
                return
            self.type(line)
        raise AssertionError(read("call", "list"))

    def wait_until_charged(self) -> None:
        def call() -> dict:
            return read("call", "show", self.known["CALL"])

        wait_for(lambda: call()["cost_micros"] is not None, call)
        assert (call()["status"], call()["end_cause"]) == ("ended", "OPERATOR")

    def charged(self) -> int:
        """Return what the call cost: 0.01 for each begun second."""
        call = read("call", "show", self.known["CALL"])
        assert call["cost_micros"] == -(-call["duration_ms"] // 1000) * 10_000
        return int(call["cost_micros"])


@pytest.fixture
def up(monkeypatch):
    """An installation that runs, for commands in this process too."""
    with server_folder() as folder:
        made = Up(folder)
        for name in {*made.env, "DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL"}:
            if name not in made.env:
                monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOLDFAST_STATE", str(made.state))
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.delenv("API_JWKS_FILE", raising=False)
        made.start()
        try:
            made.wait_until_ready()
            yield made
        finally:
            made.end()


def check_what_up_printed(up: Up) -> None:
    """Check that the tour begins with what `up` prints, and that its address is ready."""
    printed = [line.split("  #")[0].strip() for line in up.lines if "ORG" in line]
    assert printed == readme_lines()[: len(printed)] and len(printed) == 4
    assert f"  export HOLDFAST_STATE={up.state}\n" in up.lines
    assert httpx.get(f"{api_of(up)}/readyz", timeout=30).json() == {"status": "ready"}
    records = [json.loads(line) for line in up.log.read_text().splitlines()]
    assert {"relay", "worker-billing", "worker-safety-1"} <= {one.get("process") for one in records}


def api_of(up: Up) -> str:
    return re.search(r"^API +(http://\S+)/api$", "".join(up.lines), re.MULTILINE)[1]


def check_token(up: Up, tour: Tour) -> None:
    token = invoke("token", "--org", tour.org).split()[-1]
    answer = httpx.get(
        f"{api_of(up)}/api/wallet/balance",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def restart(up: Up, tours: list[Tour], signal_number: signal.Signals) -> None:
    """End everything by the signal, start it, and check that nothing is forgotten."""
    wallets = [read("wallet", "show", tour.org) for tour in tours]
    address = read("sandbox", "info")["base_url"]
    captures = httpx.get(f"{address}/_control/paypal/captures", timeout=30).json()
    assert len(captures) == 2 * len(tours)
    up.end(signal_number)
    up.start()
    up.wait_until_ready()
    assert [read("wallet", "show", tour.org) for tour in tours] == wallets
    assert read("sandbox", "info")["base_url"] == address
    assert httpx.get(f"{address}/_control/paypal/captures", timeout=30).json() == captures


@pytest.mark.timeout(900)
def test_tour_works_as_printed_twice_and_after_a_stop_and_a_kill(up):
    # Given everything on this machine, as `up --sandbox` starts it
    check_what_up_printed(up)
    tours: list[Tour] = []

    def follow_anew() -> Tour:
        tours.append(Tour())
        tours[-1].follow()
        return tours[-1]

    # When two persons follow the tour / Then it works for both
    check_token(up, follow_anew())
    second = follow_anew()

    # When everything is stopped and started / Then it works again, with all that was there
    restart(up, tours, signal.SIGTERM)
    follow_anew()
    example = re.search(r"wallet show ORG --json\n(    \{.+?\n    \})", README, re.DOTALL)[1]
    assert json.loads(example).keys() == read("wallet", "show", second.org).keys()

    # When everything is killed during a call / Then the call continues and is ended as printed
    before = read("wallet", "show", second.org)["balance_micros"]
    second.type("./run trigger vapi NUMBER")
    second.wait_until_connected("./run trigger vapi NUMBER")
    up.end(signal.SIGKILL)
    up.start()
    up.wait_until_ready()
    second.type('./run call end CALL --why "enough"')
    second.wait_until_charged()
    assert read("wallet", "show", second.org)["balance_micros"] == before - second.charged()

    # And earlier payments can be refunded, and the tour works again
    refunded = read("wallet", "show", tours[0].org)["balance_micros"] - 500_000
    tours[0].type("./run trigger paypal PAYMENT.CAPTURE.REFUNDED --org $ORG --amount 0.50")
    tours[0].wait_until_true({"available_micros": refunded})
    follow_anew()
