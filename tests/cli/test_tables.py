"""Tables and records: on a terminal of any width, and as plain text in a pipe."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from rich.console import Console

from cli.commands import tables
from cli.commands.output import json_text, show

ID = "org_0123456789abcdefghij"
AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
ROW = {
    "organization_id": ID,
    "status": "dead",
    "balance_micros": 12_500_000,
    "currency": "USD",
    "raised_at": AT,
    "waited_ms": 250,
    "error": "the provider declined the charge, because the card is no longer valid",
}


def drawn(data, width: int, *, colour: bool = False, title: str = "") -> list[str]:
    """Return the lines that a terminal of this width would show."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    tables.draw(data, title, console)
    return console.file.getvalue().splitlines()


def test_plain_table_has_one_row_per_line_without_borders(monkeypatch):
    # Given a narrow terminal's setting, which a pipe must not follow
    monkeypatch.setenv("COLUMNS", "20")
    heading, row = tables.plain([ROW]).splitlines()
    assert heading.split("  ")[0] == "organization id"
    assert row.split("  ", 1)[0] == ID
    assert ROW["error"] in row
    assert not set(heading + row) & set("│┃┏━─|")


def test_values_are_formatted_with_currency_zone_and_unit():
    row = tables.plain([ROW | {"raised_at": AT.astimezone(timezone(timedelta(hours=5)))}])
    heading, values = row.splitlines()
    for name in ("status", "balance", "raised at", "waited"):
        assert f"  {name}" in heading
    for text in ("12.50 USD", "2026-03-01 12:30:00Z", "250 ms"):
        assert f"  {text}" in values
    assert "currency" not in heading


def test_amount_with_its_own_currency_is_shown_in_it():
    row = {
        **{"cost_micros": 120_000_000, "currency": "JPY"},
        **{"provider_cost_micros": 40_000, "provider_cost_currency": "USD"},
    }
    assert tables.plain([row]).splitlines()[1].split("  ") == ["120 JPY", "0.04 USD"]


@pytest.mark.parametrize("width", [110, 80, 70])
def test_terminal_table_folds_text_and_keeps_ids_whole(width):
    row = {"organization_id": ID, "job_id": ID, "error": ROW["error"]}
    lines = drawn([row], width)
    assert max(map(len, lines)) <= width
    assert sum(line.count(ID) for line in lines) == 2
    assert len([line for line in lines if line.startswith("│")]) > 1


def test_terminal_too_narrow_for_its_columns_shows_records():
    lines = drawn([ROW, ROW], 40)
    assert lines.count(f"organization id  {ID}") == 2
    assert "balance          12.50 USD" in lines
    assert "" in lines


def test_id_longer_than_the_terminal_is_one_line():
    assert f"organization id  {ID}" in drawn({"organization_id": ID}, 20)


def test_object_in_a_record_is_lines_of_key_and_value():
    record = {"details": {"source": "paypal", "known": True}, "arguments": {}, "ids": []}
    assert tables.plain(record).splitlines() == [
        "details    source: paypal",
        "           known: yes",
        "arguments",
        "ids        none",
    ]


def test_object_in_a_plain_table_stays_on_its_line():
    rows = [{"alert_id": 1, "details": {"source": "paypal", "why": "a\nb"}}]
    assert tables.plain(rows).splitlines()[1].split(maxsplit=1)[1] == "source: paypal; why: a, b"


def test_amount_in_an_object_is_money_only_beside_its_currency():
    known = {"details": {"cost_micros": 1_500_000, "currency": "USD", "wait_seconds": 3}}
    text = tables.plain([known]).splitlines()[1]
    assert text == "cost: 1.50 USD; currency: USD; wait: 3 s"
    assert tables.plain([{"details": {"cost_micros": 5}}]).splitlines()[1] == "cost_micros: 5"


def test_lists_of_objects_follow_their_record_as_tables():
    record = {"job_id": "job_1", "attempts": [{"attempt": 1, "error": "one\ntwo"}], "causes": []}
    assert tables.plain(record).splitlines() == [
        "job id  job_1",
        "causes  none",
        "",
        "attempts",
        "attempt  error",
        "1        one\\ntwo",
    ]


def test_control_characters_of_a_text_are_escaped():
    text = tables.plain([{"name": "a\x1b[31mb\rc[red]"}])
    assert text.splitlines()[1] == r"a\x1b[31mb\rc[red]"
    assert any("c[red]" in line for line in drawn([{"name": "a\x1b[31mb\rc[red]"}], 80))


def test_empty_list_is_named():
    assert tables.plain([], "alerts") == "alerts: none\n"
    assert drawn([], 80, title="alerts") == ["alerts: none"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("status", "dead", "31"),
        ("last_job_state", "done", "32"),
        ("outcome", "something new", "33"),
        ("circuit", "closed", "32"),
        ("circuit", "open", "31"),
        ("may_spend", False, "31"),
        ("frozen", False, "32"),
    ],
)
def test_states_are_coloured_on_a_terminal_only(name, value, code):
    for data in ([{name: value}], {name: value}):
        assert any(f"\x1b[{code}m" in line for line in drawn(data, 80, colour=True))
        assert "\x1b" not in tables.plain(data)


def test_output_is_a_table_only_if_it_goes_to_a_terminal(monkeypatch, capsys):
    # Given an environment that asks for colour, as of a build service
    monkeypatch.setenv("FORCE_COLOR", "1")
    show([ROW], False, "rows")
    assert capsys.readouterr().out == tables.plain([ROW])
    # When standard output is a terminal
    reader, writer = pty.openpty()
    with os.fdopen(reader, "rb") as seen, os.fdopen(writer, "w") as terminal:
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "stdout", terminal)
        show([ROW], False, "rows")
        terminal.flush()
        shown = os.read(seen.fileno(), 65_536).decode()
    # Then it has borders
    assert "┃" in shown and ID in shown


def test_json_has_typed_values_and_instants_with_their_zone():
    far = AT.astimezone(timezone(timedelta(hours=5)))
    data = {"at": far, "day": AT.date(), "note": "", "ids": ("a",), "is_ending": False}
    assert json.loads(json_text(data)) == {
        "at": "2026-03-01T12:30:00+00:00",
        "day": "2026-03-01",
        "note": None,
        "ids": ["a"],
        "is_ending": False,
    }
