"""Format typed rows as tables and records, on a terminal or as plain text.

Amounts are shown with their currency, instants in UTC, durations with their unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from base.money import text_from_micros

#: The text after a value, for the suffix of its key that names the unit.
_UNIT_TEXTS = {"_seconds": " s", "_ms": " ms"}
_ID_SUFFIXES = ("_id", "_ids", "_sid")
#: Columns whose text is coloured: those with these names, also after a prefix.
_STATE_NAMES = ("status", "state", "outcome", "severity", "circuit")
_GREEN_VALUES = {
    *("active", "allowed", "admitted", "armed", "charged", "charging", "committed", "done"),
    *("in_line", "in_progress", "live", "on", "repaired", "running", "settled"),
}
_RED_VALUES = {
    *("critical", "dead", "declined", "failed", "frozen", "inactive", "needs_person", "refused"),
    *("silent", "suspended", "cancelled", "discarded", "unknown"),
}
_CIRCUIT_STYLES = {"closed": "green", "open": "red", "half-open": "yellow"}
#: Booleans that are coloured, each with the value that is green.
_GOOD_BOOLEANS = {"may_spend": True, "consistent": True, "frozen": False}
#: The narrowest column that is folded. A table that needs less is printed as records.
_FOLDED_WIDTH_MIN = 8


def plain(data: Any, title: str = "", columns: Sequence[str] = ()) -> str:
    """Return data as plain text without borders or wrapping: one row per line."""
    if isinstance(data, Mapping):
        return "".join(_plain_parts(data, title))
    if not data:
        return _empty_text(title)
    names = _columns(data, columns)
    lines = [[_heading(name) for name in names]]
    lines += [[_one_line(name, row) for name in names] for row in data]
    widths = [max(cell_len(line[at]) for line in lines) for at in range(len(names))]
    return "".join(f"{_pad_cells(line, widths)}\n" for line in lines)


def draw(data: Any, title: str, console: Console, columns: Sequence[str] = ()) -> None:
    """Draw data on a terminal: a list as a table, an object as a record.

    A column of ids keeps its width, and the other columns fold. If the terminal is too narrow for
    that, each row is drawn as a record.
    """
    if isinstance(data, Mapping):
        scalars, sections = _split_sections(data)
        _draw_title(title, console)
        _draw_record(scalars, console)
        for name, rows in sections.items():
            console.line()
            draw(rows, _heading(name), console)
        return
    if not data:
        console.print(Text(_empty_text(title).rstrip()))
        return
    names = _columns(data, columns)
    widths = _fit_widths(names, data, console.width)
    if widths is None:
        _draw_title(title, console)
        for at, row in enumerate(data):
            if at:
                console.line()
            _draw_record({name: row.get(name) for name in names}, console, row)
        return
    table = Table(title=Text(title, style="italic") if title else None, title_justify="left")
    for name, width in zip(names, widths, strict=True):
        table.add_column(_heading(name), width=width, overflow="fold", no_wrap=_is_id(name))
    for row in data:
        table.add_row(*[Text(_cell_text(name, row), _style(name, row.get(name))) for name in names])
    console.print(table)


def _plain_parts(record: Mapping[str, Any], title: str) -> list[str]:
    scalars, sections = _split_sections(record)
    parts = [f"{title}\n"] if title else []
    parts += [f"{name}{text}\n" for name, text, _ in _record_lines(scalars)]
    for name, rows in sections.items():
        heading = _heading(name)
        parts.append(f"\n{heading}\n{plain(rows)}")
    return parts


def _split_sections(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a record's own values, and its lists of objects, which are tables."""
    sections = {
        name: value
        for name, value in record.items()
        if value and isinstance(value, list) and all(isinstance(one, Mapping) for one in value)
    }
    return {name: value for name, value in record.items() if name not in sections}, sections


def _record_lines(
    record: Mapping[str, Any], row: Mapping[str, Any] | None = None
) -> list[tuple[str, str, str]]:
    """Return the lines of a record: the padded name, the text and its style."""
    row = record if row is None else row
    names = _columns([record], ())
    width = max((cell_len(_heading(name)) for name in names), default=0) + 2
    lines = []
    for name in names:
        style = _style(name, row.get(name))
        whole = "none" if row.get(name) == [] else _cell_text(name, row)
        for at, text in enumerate(whole.split("\n")):
            first = _heading(name) if at == 0 else ""
            lines.append((first + " " * (width - cell_len(first)) if text else first, text, style))
    return lines


def _draw_record(
    record: Mapping[str, Any], console: Console, row: Mapping[str, Any] | None = None
) -> None:
    for name, text, style in _record_lines(record, row):
        line = Text.assemble((name, "bold"), (text, style))
        # The terminal itself wraps a line that is too long, so an id that is copied stays whole.
        console.print(line, soft_wrap=True)


def _draw_title(title: str, console: Console) -> None:
    if title:
        console.print(Text(title, style="italic"))


def _empty_text(title: str) -> str:
    return f"{title}: none\n" if title else "none\n"


def _columns(rows: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> list[str]:
    """Return the columns to show: without a currency that is part of an amount."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    amounts = [name for name in names if name.endswith("_micros")]
    hidden = {"currency", *(f"{name.removesuffix('_micros')}_currency" for name in amounts)}
    shown = [name for name in names if not (amounts and name in hidden)]
    return [name for name in shown if not wanted or name in wanted]


def _heading(name: str) -> str:
    return _without_unit(name).replace("_", " ")


def _without_unit(name: str) -> str:
    for suffix in ("_micros", *_UNIT_TEXTS):
        name = name.removesuffix(suffix)
    return name


def _is_id(name: str) -> bool:
    return name.endswith(_ID_SUFFIXES) or name == "process"


def _cell_text(name: str, row: Mapping[str, Any]) -> str:
    """Return one value of a row as text; only an object has more than one line."""
    value = row.get(name)
    if name.endswith("_micros") and isinstance(value, int):
        own_currency = row.get(f"{name.removesuffix('_micros')}_currency")
        currency = own_currency or row["currency"]
        return f"{text_from_micros(value, currency)} {currency}"
    text = _value_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        text += next((unit for suffix, unit in _UNIT_TEXTS.items() if name.endswith(suffix)), "")
    return text


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, Mapping):
        return "\n".join(_nested_line(name, value) for name in value)
    if isinstance(value, list | tuple):
        separator = "; " if any(isinstance(one, Mapping) for one in value) else ", "
        return separator.join(_value_text(one).replace("\n", ", ") for one in value)
    return "" if value is None else _printable(str(value))


def _nested_line(name: str, value: Mapping[str, Any]) -> str:
    """Return a key of an object inside a row, with its value, on one line."""
    # Without a currency beside it, an amount stays a number of micros, under its whole name.
    if name.endswith("_micros") and not value.get("currency"):
        return f"{name}: {_value_text(value[name])}"
    shown = name if isinstance(value[name], str) else _without_unit(name)
    return f"{shown}: {_cell_text(name, value)}".replace("\n", ", ")


def _one_line(name: str, row: Mapping[str, Any]) -> str:
    separator = "; " if isinstance(row.get(name), Mapping) else "\\n"
    return _cell_text(name, row).replace("\n", separator)


def _printable(text: str) -> str:
    """Escape control characters, which providers' texts could send to a terminal."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def _pad_cells(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(line, widths, strict=True)
    return "  ".join(text + " " * (width - cell_len(text)) for text, width in cells).rstrip()


def _style(name: str, value: Any) -> str:
    if isinstance(value, bool):
        good = _GOOD_BOOLEANS.get(name)
        return "" if good is None else ("green" if value is good else "red")
    if name == "circuit":
        return _CIRCUIT_STYLES.get(str(value), "")
    if value is None or name.rpartition("_")[2] not in _STATE_NAMES:
        return ""
    return "green" if value in _GREEN_VALUES else "red" if value in _RED_VALUES else "yellow"


def _fit_widths(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], terminal_width: int
) -> list[int] | None:
    """Return the width of each column; None if the columns cannot fit."""
    widths = [
        max(
            cell_len(line)
            for text in (_heading(name), *(_cell_text(name, row) for row in rows))
            for line in text.split("\n")
        )
        for name in names
    ]
    # A border before each column and a space on both of its sides, and the last border.
    available_width = terminal_width - (3 * len(names) + 1)
    foldable = [at for at, name in enumerate(names) if not _is_id(name)]
    while sum(widths) > available_width:
        widest = max(foldable, key=lambda at: widths[at], default=None)
        if widest is None or widths[widest] <= _FOLDED_WIDTH_MIN:
            return None
        widths[widest] -= 1
    return widths
