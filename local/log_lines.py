"""Formats the lines that child processes write, each with the process's name."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

#: Turns a process's name and one line of its output into a line for standard error.
LineFormat = Callable[[str, str], str]

#: Width of the names in a terminal. The longest is `worker-safety-1`.
_NAME_WIDTH = 15
#: ANSI colours of the names: cyan, green, yellow, blue, magenta, and their bright forms.
_COLOURS = (36, 32, 33, 34, 35, 96, 92, 93, 94, 95)


def prefixed(name: str, line: str) -> str:
    """Write the line after the process's name."""
    return f"{name} | {line}"


def aligned(name: str, line: str) -> str:
    """Write the line after the process's name, in a column of equal width."""
    return f"{name:<{_NAME_WIDTH}} | {line}"


def coloured(name: str, line: str) -> str:
    """Write the line after the process's name, which always has the same colour."""
    colour = _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]
    return f"\x1b[{colour}m{name:<{_NAME_WIDTH}}\x1b[0m | {line}"


def json_line(name: str, line: str) -> str:
    """Add the process's name to a JSON object; make one of any other line."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        record = {"event": "process_output", "line": line}
    return json.dumps({"process": name, **record})
