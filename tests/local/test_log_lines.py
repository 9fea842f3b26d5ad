"""Log lines of child processes: each names its process, in every format."""

from __future__ import annotations

import json
import os

import pytest

from base.clock import wait_until
from local.log_lines import aligned, coloured, json_line
from local.supervisor import ChildProcess, Supervisor
from tests.local.test_supervisor import python


def test_json_line_adds_the_process_to_a_record():
    record = json.loads(json_line("relay", '{"event": "relay_started", "level": "info"}'))
    assert record == {"process": "relay", "event": "relay_started", "level": "info"}


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "[1]", '"x"', "", "{"])
def test_json_line_makes_a_record_of_any_other_line(line):
    record = json.loads(json_line("relay", line))
    assert record == {"process": "relay", "event": "process_output", "line": line}


def test_terminal_lines_show_the_name_in_one_column():
    assert aligned("relay", "x") == "relay           | x"
    assert coloured("relay", "x").endswith("mrelay          \x1b[0m | x")
    assert coloured("relay", "x") == coloured("relay", "x")


def test_supervisor_writes_childrens_lines_in_its_format(capfd):
    shown = ""

    def is_shown() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return shown.count("\n") >= 2

    code = """print('{"event": "a"}'); print("b"); input()"""
    with Supervisor(line_format=json_line) as supervisor:
        supervisor.start(ChildProcess("talker", python(code), dict(os.environ)))
        assert wait_until(is_shown, limit_seconds=5)
    first, second = (json.loads(line) for line in shown.splitlines()[:2])
    assert first == {"process": "talker", "event": "a"}
    assert second == {"process": "talker", "event": "process_output", "line": "b"}
