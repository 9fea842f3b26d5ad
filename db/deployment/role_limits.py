"""Check the time limits that the role holdfast_app sets for its connections."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.orm import Session

#: The limits that every connection of holdfast_app must have.
APP_SETTINGS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
#: Shortest and longest plausible limit, in milliseconds. A shorter one would cancel all work. A
#: longer one would keep a lock for longer than any job may last.
_MS_MIN, _MS_MAX = 100, 60_000

# A setting for this database overrides the one for all databases, so it is read last.
_READ = text(
    "SELECT split_part(s.one, '=', 1) AS name, split_part(s.one, '=', 2) AS value"
    " FROM pg_db_role_setting r CROSS JOIN unnest(r.setconfig) AS s (one)"
    " WHERE r.setrole = to_regrole('holdfast_app') AND r.setdatabase"
    " IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"
    " ORDER BY r.setdatabase"
)
#: Source: PostgreSQL's manual, 20.1.1 "Parameter Names and Values"; without a unit, milliseconds.
_MS_OF_UNIT = {
    "us": 0.001,
    "ms": 1,
    "": 1,
    "s": 1_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
_DURATION = re.compile(r"\s*([+-]?[0-9]*\.?[0-9]+)\s*(us|ms|s|min|h|d)?\s*", re.ASCII)


def wrong_limits(session: Session) -> Iterator[str]:
    """Describe each limit of holdfast_app that is missing, disabled or not plausible."""
    values = {row.name: row.value for row in session.execute(_READ)}
    for name in APP_SETTINGS:
        value = values.get(name, "")
        if not value:
            yield f"has no {name}"
            continue
        milliseconds = _milliseconds(value)
        if milliseconds is None:
            yield f"its {name} is {value}, which is no duration"
        elif milliseconds <= 0:
            yield f"has no {name}: {value} means no limit"
        elif not _MS_MIN <= milliseconds <= _MS_MAX:
            yield f"its {name} is {value}; it must be 100 ms to 60 s"


def _milliseconds(value: str) -> int | None:
    """Convert a duration to whole milliseconds, rounded as PostgreSQL rounds it."""
    found = _DURATION.fullmatch(value)
    return None if found is None else round(float(found[1]) * _MS_OF_UNIT[found[2] or ""])
