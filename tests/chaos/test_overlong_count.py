"""The count of calls past their maximum duration, from given facts."""

from __future__ import annotations

import pytest

from chaos.facts import Facts
from chaos.journal import RecordedRequest, RecordedTraffic
from chaos.overlong_count import overlong


def problems(seconds: float, *, alerts: list[tuple[str, str]], load: float = 5.0) -> list[str]:
    """Return the problems of one call that talked for `seconds` and may last 10 s."""

    def rows(query: str) -> list[tuple[str, ...]]:
        return list(alerts) if "alerts" in query else [("v1", "c1")]

    facts = Facts(
        customers=[],
        recorded=RecordedTraffic({"overlong": {("org", "v1"): RecordedRequest(0)}}),
        database=None,
        rows=rows,
        captures=[],
        subscriptions={},
        subaccounts={},
        calls={"v1": {"seconds": seconds, "longest_seconds": 10}},
        accepted=set(),
        load_of_each_core=load,
    )
    return [one.text.partition(", ")[2] for one in overlong(facts)]


@pytest.mark.parametrize(
    ("seconds", "alerts", "expected"),
    [
        (12.0, [], []),
        (18.0, [("org", "c1")], []),
        (18.0, [], ["and no alert was raised"]),
        (18.0, [("org", "another"), ("another", "c1")], ["and no alert was raised"]),
        (114.0, [("org", "c1")], []),
        (116.0, [("org", "c1")], ["and had to end after 15 s"]),
        (116.0, [], ["and had to end after 15 s", "and no alert was raised"]),
    ],
)
def test_call_past_its_maximum_is_lost_when_late_or_not_alerted(seconds, alerts, expected):
    assert problems(seconds, alerts=alerts) == expected


def test_late_call_is_not_counted_on_an_overloaded_machine():
    assert problems(116.0, alerts=[("org", "c1")], load=5.1) == []
    assert problems(116.0, alerts=[], load=5.1) == ["and no alert was raised"]
