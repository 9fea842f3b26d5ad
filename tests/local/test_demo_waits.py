"""On a busy machine, the demo names the wait that expired, and after how long."""

from __future__ import annotations

import io
import socket

import httpx
import pytest
import typer
from rich.console import Console

from base.settings import Settings
from cli.errors import clear_errors
from local.demo import play
from local.demo.report import Report
from local.demo.stories import Story
from local.demo.system import DemoSystem
from local.errors import ProcessNotReady


def test_expired_check_is_named_in_the_last_line_with_its_seconds():
    shown = io.StringIO()
    report = Report(Console(file=shown, width=200), effect_seconds=0.1)
    report.scene("Calls")
    report.eventually("all talk", lambda: 3, 10)
    report.eventually("one talks", lambda: 1, 1)
    assert report.end() == (
        "demo: 1 checks passed, 1 failed; waits that expired: 'all talk' after 0.1 s"
    )
    assert report.checks[0].found == "expected 10, found 3 after 0.1 s"


def one_line_of(work, capsys) -> str:
    with pytest.raises(typer.Exit) as caught, clear_errors():
        work()
    assert caught.value.exit_code == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_expired_wait_ends_the_demo_with_one_line(capsys):
    report = Report(None, effect_seconds=0.1)
    line = one_line_of(lambda: report.wait_for("the moon", lambda: False), capsys)
    assert line.startswith("holdfast: the demo waited 0.1 s for the moon; ")
    assert line.endswith("run it again\n")


def test_silent_sandbox_ends_the_demo_with_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=0.1) as control:
            system = DemoSystem(None, None, control, None, None)
            line = one_line_of(lambda: system.ask("POST", "/vapi/calls", {}), capsys)
    assert "waited 0.1 s for the sandbox to answer POST /vapi/calls; " in line


def test_demo_chooses_its_own_port_if_port_is_set_and_busy(monkeypatch, tmp_path):
    chosen: list[int] = []

    def stack(settings, *_args, **_more):
        chosen.append(settings.port)
        raise ProcessNotReady("stopped by the test")

    monkeypatch.setattr(play, "Stack", stack)
    monkeypatch.setenv("PORT", "8080")
    with pytest.raises(ProcessNotReady):
        play.run_demo(Settings(holdfast_state=tmp_path), Story.WAY, as_json=True)
    assert chosen == [0]
