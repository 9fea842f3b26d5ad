"""`holdfast action list`: what operators did manually, newest first."""

from __future__ import annotations

import json
from datetime import datetime


def listed(run, *arguments):
    code, out, err = run("action", "list", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def test_action_list_shows_each_action_with_name_and_reason(run, organization_id):
    org = organization_id
    assert run("org", "enforce", org, "--why", "asked by Acme", "--by", "ann", "--wait", "0")[
        0
    ] in (
        0,
        1,
    )
    run("wallet", "thresholds", org, "--set", "20", "--why", "agreed", "--by", "bob")

    found = listed(run, "--org", org)

    newest, oldest = found
    assert set(newest) == {"id", "action", "subject", "by", "why", "acted_at"}
    assert (newest["action"], newest["subject"]) == ("thresholds.set", org)
    assert (newest["by"], newest["why"]) == ("bob", "agreed")
    assert (oldest["action"], oldest["by"]) == ("organization.enforce", "ann")
    assert datetime.fromisoformat(newest["acted_at"]).utcoffset() is not None
    assert "T" in newest["acted_at"]
    # And the table shows the same
    _, out, _ = run("action", "list", "--org", org)
    assert "thresholds.set" in out
    assert "agreed" in out


def test_action_list_filters_and_pages_by_cursor(run, organization_id):
    org = organization_id
    for by, level in (("ann", "10"), ("bob", "20"), ("ann", "30")):
        run("wallet", "thresholds", org, "--set", level, "--why", level, "--by", by)
    first = listed(run, "--subject", org, "--limit", "2")
    assert [one["why"] for one in first] == ["30", "20"]
    second = listed(run, "--subject", org, "--limit", "2", "--after", first[-1]["id"])
    assert [one["why"] for one in second] == ["10"]
    by_ann = listed(run, "--by", "ann", "--since", "2020-01-01")
    assert [one["why"] for one in by_ann] == ["30", "10"]
    assert listed(run, "--since", "2100-01-01") == []
    assert "operator actions: none" in run("action", "list", "--by", "x")[1]
    # And the next page's cursor is on standard error
    assert run("action", "list", "--limit", "2")[2] == f"more: --after {first[-1]['id']}\n"
