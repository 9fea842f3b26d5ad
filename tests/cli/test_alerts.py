"""Alerts by command: cleared with a reason."""

from __future__ import annotations

import json


def data(answer):
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def test_alert_is_cleared_manually_with_a_reason(run, organization_id):
    run("wallet", "thresholds", organization_id, "--set", "20", "--why", "asked")
    (alert,) = data(run("alert", "list", "--org", organization_id, "--json"))
    code, _, err = run("alert", "clear", str(alert["alert_id"]), "--why", " ")
    assert (code, "the reason must not be empty" in err) == (1, True)
    cleared = data(
        run("alert", "clear", str(alert["alert_id"]), "--why", "the organization knows", "--json")
    )
    assert (cleared["alert_id"], cleared["cleared_at"] is not None) == (alert["alert_id"], True)
    assert data(run("alert", "list", "--org", organization_id, "--json")) == []
    code, _, err = run("alert", "clear", "999999999", "--why", "the organization knows")
    assert (code, "ALERT_NOT_FOUND" in err) == (1, True)
