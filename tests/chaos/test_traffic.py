"""The traffic: what happens when an error ends a thread."""

from __future__ import annotations

import pytest

from base.clock import wait_until
from chaos.run import traffic_problems
from chaos.traffic import start_threads
from tests.chaos.scenes import make_scene


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_traffic_thread_is_reported(urls, tmp_path):
    # Given traffic whose payments, calls and changes cannot reach the sandbox
    scene = make_scene(urls, tmp_path, "http://127.0.0.1:1/_control", holds=True)
    # When it runs for a moment, and is stopped
    threads = start_threads(scene)
    assert wait_until(lambda: len(scene.died) >= 3, limit_seconds=20)
    scene.stop()
    for thread in threads:
        thread.join(20)
    scene.database.close()
    # Then the run names the threads that sent no further requests
    problems = traffic_problems({"died": scene.died, "running": []})
    assert {one.kind for one in problems} == {"lost"}
    assert all("died: httpx.ConnectError: " in one.text for one in problems)
    names = {one.text.split()[1] for one in problems}
    assert {"payments", "phone-0", "phone-1"} <= names
