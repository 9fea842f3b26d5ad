"""The database's clock: it steps while the server runs, and steps back."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from base.clock import wait_until
from chaos.clock import STEP_SEEN_SECONDS, DatabaseClock
from chaos.processes import is_stopped
from chaos.servers import KillableServer
from db.address import driver_url
from tests.support.servers import server_folder


def test_clock_of_a_running_server_steps_and_returns():
    with server_folder() as folder:
        clock = DatabaseClock(Path(folder) / "clock")
        if not clock.can_step:
            pytest.skip(clock.missing)
        server = KillableServer(
            Path(folder) / "postgres", postgres=True, environment=clock.environment()
        )
        server.start()
        try:
            with psycopg.connect(driver_url(server.url), autocommit=True) as owner:

                def is_off_by(seconds: int) -> bool:
                    row = owner.execute("SELECT clock_timestamp()").fetchone()
                    assert row is not None
                    off = (row[0] - datetime.now(UTC)).total_seconds()
                    return abs(off - seconds) < 300

                assert is_off_by(0)
                for step in (-3_600, 3_600, 0):
                    clock.step(step)
                    assert wait_until(lambda step=step: is_off_by(step), limit_seconds=10)
        finally:
            server.stop()


def test_clock_of_a_paused_server_steps_for_all_sessions_at_once():
    with server_folder() as folder, contextlib.ExitStack() as opened:
        clock = DatabaseClock(Path(folder) / "clock")
        if not clock.can_step:
            pytest.skip(clock.missing)
        server = KillableServer(
            Path(folder) / "postgres", postgres=True, environment=clock.environment()
        )
        server.start()
        opened.callback(server.stop)
        url = driver_url(server.url)
        sessions = [opened.enter_context(psycopg.connect(url, autocommit=True)) for _ in range(5)]

        def minutes_off() -> list[int]:
            rows = [one.execute("SELECT clock_timestamp()").fetchone() for one in sessions]
            return [round((row[0] - datetime.now(UTC)).total_seconds() / 60) for row in rows]

        assert minutes_off() == [0] * 5
        backends = [one.info.backend_pid for one in sessions]
        # When the clock is set while the server is paused, then each session's first query sees it
        for step in (3_600, 0, -3_600):
            with server.paused():
                assert wait_until(lambda: all(map(is_stopped, backends)), limit_seconds=10)
                clock.step(step)
                time.sleep(STEP_SEEN_SECONDS)
            assert minutes_off() == [step // 60] * 5


def test_clock_names_the_missing_library(tmp_path, monkeypatch):
    monkeypatch.setattr("chaos.clock._LIBRARIES", "/nowhere/*.so")
    clock = DatabaseClock(tmp_path / "clock")
    assert (clock.can_step, clock.environment()) == (False, {})
    assert "package faketime" in clock.missing
