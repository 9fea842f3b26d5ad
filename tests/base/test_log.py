"""Logs: JSON lines or console lines, with bound fields, from a separate process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from local import ROOT

_PROGRAM = """
import logging
from base.log import bound, configure, get_logger
import sys
configure("INFO", *sys.argv[1:])
log = get_logger("test")
with bound(correlation_id="cor_1", job=None):
    log.info("inside", size=3)
log.debug("too quiet")
logging.getLogger("httpx").info("GET https://host/?token=secret")
logging.getLogger("other").warning("plain")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("two\\nlines")
"""


def test_every_record_is_one_json_object_on_stderr():
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == ""
    records = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [record["event"] for record in records] == ["inside", "plain", "two\nlines"]
    assert (records[0]["correlation_id"], records[0]["size"]) == ("cor_1", 3)
    assert (records[0]["level"], records[0]["logger"]) == ("info", "test")
    assert "correlation_id" not in records[1]
    assert "ZeroDivisionError" in records[2]["exception"]


def console_lines(**environment: str) -> str:
    bare = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "console"],
        cwd=ROOT,
        env=bare | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == ""
    return ran.stderr


def test_console_format_writes_coloured_lines_for_a_person():
    coloured = console_lines()
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    first = plain.splitlines()[0]
    assert re.match(r"\d\d:\d\d:\d\d \[info +\] inside +\[test\]", first)
    assert "correlation_id=cor_1" in first
    assert "size=3" in first
    assert "ZeroDivisionError: division by zero" in plain
    assert "too quiet" not in plain
    assert "secret" not in plain


def test_console_format_has_no_colour_if_no_color_is_set():
    assert "\x1b[" not in console_lines(NO_COLOR="1")
