"""Reports of a call that contradict what Vapi reported before."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from chaos.phone_count import talked_ms

_LONGER_SECONDS = 30


def longer_report(record: dict[str, Any]) -> dict[str, Any]:
    """Make a report of a conversation that is 30 s longer than in Vapi's record."""
    began = record.get("startedAt") or record["endedAt"]
    longer = timedelta(milliseconds=talked_ms(record), seconds=_LONGER_SECONDS)
    ended = (datetime.fromisoformat(began) + longer).isoformat()
    seconds = talked_ms(record) / 1000 + _LONGER_SECONDS
    times = {"startedAt": began, "endedAt": ended}
    return times | {"durationSeconds": round(seconds, 3), "call": record | times}


def denied_report(record: dict[str, Any]) -> dict[str, Any]:
    """Make a report of an unanswered call, although Vapi reported a conversation."""
    reason = {"endedReason": "customer-did-not-answer"}
    shown = {name: value for name, value in record.items() if name != "startedAt"}
    return reason | {"startedAt": None, "durationSeconds": 0, "call": shown | reason}
