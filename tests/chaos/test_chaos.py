"""The chaos test as a person runs it: clean without sabotage, failing with one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local import ROOT

#: The run starts its own servers, so a second run for other servers would test the same.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(os.environ.get("DATABASE_URL")), reason="chaos runs on servers of its own"
    ),
]

LAST_LINE = re.compile(
    r"chaos: faults=(\d+) events=(\d+) lost=(\d+) doubled=(\d+) drift=(\d+)"
    r" refused_by_database=(\d+) seed=1"
)


def run_chaos(*arguments: str) -> tuple[int, list[int], str]:
    """Run `holdfast chaos`; return its exit status, the last figures, the output."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "chaos", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    output = done.stdout + done.stderr
    last = LAST_LINE.fullmatch((done.stdout.splitlines() or [""])[-1])
    assert last is not None, output
    return done.returncode, [int(figure) for figure in last.groups()], output


#: Kinds of requests that the traffic makes every few seconds even on a slow machine.
SORTS = {
    "debit", "reserve", "extend", "commit", "release", "phone", "overlong", "book", "dial",
    "predial", "campaign_dial", "webhook", "freeze",
}  # fmt: skip


def test_faults_of_all_kinds_lose_double_and_drift_nothing(tmp_path):
    # When all processes run under traffic while all kinds of faults occur
    path = tmp_path / "report.json"
    code, figures, output = run_chaos("--seconds", "40", "--seed", "1", "--json", str(path))

    # Then the count is clean
    faults, events, *problems = figures
    assert problems == [0, 0, 0, 0], output
    assert code == 0
    # And faults of several kinds hit traffic of every kind
    report = json.loads(path.read_text())
    assert SORTS - report["asked"].keys() == set()
    assert sum(report["asked"].values()) == events
    assert faults == sum(report["faults"].values())
    assert sum(times > 0 for times in report["faults"].values()) >= 5


def test_count_reports_lost_work_when_no_relay_runs():
    # When no relay runs, so that a job whose notification is lost is never run
    code, figures, output = run_chaos(
        "--seconds", "12", "--seed", "1", "--rest-seconds", "5", "--sabotage", "relay-off"
    )

    # Then the run fails and reports lost requests
    _, _, lost, *_ = figures
    assert lost > 0, output
    assert code == 1
    # And the evidence file lists each problem and explains one of each subject
    named = re.search(r"^evidence: (.+)$", output, re.MULTILINE)
    assert named is not None, output
    path = Path(named[1])
    written = json.loads(path.read_text())
    path.unlink()
    assert (written["seed"], written["lost"]) == (1, lost)
    assert len(written["problems"]) == sum(written[kind] for kind in ("lost", "doubled", "drift"))
    assert sorts(written["explained"]) == sorts(written["problems"])
    for problem in written["explained"]:
        rows = [row for rows in problem["evidence"].values() for row in rows]
        assert all(id_ in row for row in rows for id_ in problem["ids"])
    assert any(problem["evidence"] for problem in written["explained"])


def sorts(problems: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the kind and the subject of each problem."""
    return {(one["kind"], one["text"].split()[0]) for one in problems}
