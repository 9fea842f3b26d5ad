"""The table of billing states: each call is in one state, in SQL as in Python."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from sqlalchemy.sql import visitors

from base.enums import CallBillingState
from db.engine import Database
from db.models.calls import IS_LIVE, Call
from domain.calls.billing import FIRST_STATES, LIVE_STATES, STATES, billing_state, in_state
from local import ROOT

#: The columns that a billing state depends on, with every value that makes a difference.
_VALUES = {
    "status": "unnest(CAST(:status AS text[]))",
    "settled_by": "unnest(array_append(CAST(:settled_by AS text[]), NULL))",
    "settled_at": "unnest(ARRAY[now(), NULL])",
    "cost_micros": "unnest(ARRAY[0, 1, NULL])",
    "merged_into": "unnest(ARRAY['c2', NULL])",
    "end_decided_at": "unnest(ARRAY[now(), NULL])",
    "withheld_for": "unnest(ARRAY['c3', NULL])",
    "micros_per_minute": "unnest(ARRAY[0, 60])",
    "refusal": "unnest(ARRAY['FOREIGN_NUMBER', 'NO_RATE', NULL])",
}
#: Columns that are derived, so that each combination violates no more constraints than it must.
_DERIVED = {
    "organization_id": "'o1'",
    "id": "'c1'",
    "direction": "'outbound'",
    "currency": "'USD'",
    "increment_seconds": "1",
    "minimum_micros": "0",
    "end_cause": "CASE WHEN end_decided_at IS NOT NULL THEN 'operator' END",
    "ended_seen_at": "CASE WHEN status = 'ended' THEN now() END",
    "created_at": "now()",
}


@pytest.fixture(scope="module")
def combinations(shared_urls):
    """Return a session whose `calls` has each combination that the checks allow."""
    database = Database(shared_urls.owner_url, name="owner", pool_size=1)
    with Session(database.engine) as session:
        _fill(session)
        yield session
    database.close()


def _fill(session):
    checks = session.execute(
        text(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = 'public.calls'::regclass AND contype = 'c'"
        )
    ).all()
    allowed = {name: re.findall(r"'(\w+)'::text", check) for name, check in checks}
    # PostgreSQL finds this temporary table before `public.calls`.
    session.execute(text("CREATE TEMP TABLE calls (LIKE public.calls INCLUDING DEFAULTS)"))
    columns = {**{name: name for name in _VALUES}, **_DERIVED}
    sources = ", ".join(f"{values} AS {name}" for name, values in _VALUES.items())
    session.execute(
        text(
            f"INSERT INTO calls ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            f" FROM {sources}"
        ),
        {
            "status": allowed["calls_status_check"],
            "settled_by": allowed["calls_settled_by_check"],
        },
    )
    for _, check in checks:
        session.execute(text(f"DELETE FROM calls WHERE NOT ({check.removeprefix('CHECK ')})"))
    # Each row gets an id, so that the session does not take them for one call.
    session.execute(text("UPDATE calls SET id = ctid::text"))


def test_each_call_is_in_one_state_in_sql_as_in_python(combinations):
    states = list(STATES)
    rows = combinations.execute(select(Call, *(in_state(one) for one in states))).all()
    assert len(rows) > 1_000
    for call, *fits in rows:
        in_sql = [state for state, fit in zip(states, fits, strict=True) if fit]
        in_python = [state for state in states if STATES[state].condition.is_true_of(call)]
        assert in_sql == in_python == [billing_state(call)], vars(call)
    assert {billing_state(row[0]) for row in rows} == set(CallBillingState)


def test_combinations_vary_each_column_that_a_condition_reads():
    read = {
        one.key
        for state in STATES
        for one in visitors.iterate(in_state(state))
        if one.__visit_name__ == "column"
    }
    assert read == set(_VALUES)


def test_live_states_are_those_of_the_index_of_live_calls(combinations):
    rows = combinations.execute(select(Call, IS_LIVE)).all()
    for call, is_live in rows:
        assert (billing_state(call) in LIVE_STATES) is is_live, vars(call)


def test_each_state_can_be_reached():
    reached = set(FIRST_STATES)
    for _ in STATES:
        reached.update(*(STATES[state].next_states for state in reached))
    assert reached == set(STATES) == set(CallBillingState)


# The documentation


def test_documentation_explains_each_state_in_the_tables_terms():
    found = re.findall(r"^\| `(\w+)` \| (.+) \|$", _section(), re.MULTILINE)
    assert found == [(state, row.money) for state, row in STATES.items()]


def test_diagram_shows_exactly_the_transitions_of_the_table():
    declared = {(state, after) for state, row in STATES.items() for after in row.next_states}
    assert _diagram() == declared | {("start", state) for state in FIRST_STATES}


def _section() -> str:
    text = (ROOT / "docs" / "calls.md").read_text()
    return text.split("## The billing state of a call\n")[1].split("\n## ")[0]


def _diagram() -> set[tuple[str, str]]:
    """Read the arrows of the diagram.

    An arrow from or to a box is one for each of its states.
    """
    _, _, drawn = _section().partition("```mermaid\n")
    lines = [line.strip() for line in drawn.partition("```")[0].splitlines()]
    boxes: dict[str, set[str]] = {}
    arrows, inside = [], None
    for line in lines[1:]:
        if line.startswith("subgraph "):
            inside = line.removeprefix("subgraph ")
        elif line == "end":
            inside = None
        else:
            ends = [re.findall(r"\w+", end) for end in line.replace("((new))", "").split("-->")]
            arrows.append(ends)
            if inside:
                boxes.setdefault(inside, set()).update(*ends)

    def states(names: list[str]) -> set[str]:
        return {state for name in names for state in boxes.get(name, {name})}

    return {
        (before, after)
        for source, target in arrows
        for before in states(source)
        for after in states(target)
    }
