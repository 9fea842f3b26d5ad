"""The supervisor: children are restarted, stopped in order, and never left behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from base.clock import wait_until
from local import ROOT
from local.errors import ProcessNotReady
from local.server import is_alive
from local.supervisor import ChildProcess, Supervisor

_SLEEPS = "import time; time.sleep(600)"
#: When it is stopped, it writes its name to a file that all children share.
_NOTES = """
import signal, sys, time
def stop(*_):
    with open(sys.argv[1], "a") as noted: noted.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1] + "." + sys.argv[2], "w").close()
time.sleep(600)
"""
_STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
time.sleep(600)
"""
#: A supervisor in its own process, with two children, one of which ignores SIGTERM.
_SUPERVISOR = (
    """
import os, sys
from pathlib import Path
from local.supervisor import ChildProcess, Supervisor
folder = Path(sys.argv[1])
stubborn = '''"""
    + _STUBBORN
    + """'''
with Supervisor(folder) as supervisor:
    plain = [sys.executable, "-c", "import time; time.sleep(600)"]
    supervisor.start(ChildProcess("plain", plain, {}))
    supervisor.start(ChildProcess(
        "stubborn",
        [sys.executable, "-c", stubborn, str(folder / "ready")],
        {},
        ready=(folder / "ready").exists,
        stop_seconds=60,
    ))
    # Before the test learns that it may send a signal.
    supervisor.listen()
    print(supervisor.pid("plain"), supervisor.pid("stubborn"), flush=True)
    print("received", supervisor.wait().name, flush=True)
print("stopped", flush=True)
"""
)


def python(code: str, *args: str | Path) -> list[str]:
    return [sys.executable, "-c", code, *map(str, args)]


def is_restarted(supervisor: Supervisor, name: str, times: int) -> bool:
    return supervisor.restarts(name) >= times and supervisor.alive(name)


def start_supervisor(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        python(_SUPERVISOR, folder),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    return process, [int(text) for text in process.stdout.readline().split()]


def test_dead_child_is_restarted_and_reported(tmp_path: Path) -> None:
    # Given
    exits: list[tuple[str, int]] = []
    again: list[tuple[str, int]] = []
    with Supervisor(
        tmp_path,
        on_exit=lambda name, code: exits.append((name, code)),
        on_restart=lambda name, pid: again.append((name, pid)),
    ) as supervisor:
        supervisor.start(ChildProcess("worker", python(_SLEEPS), {}))
        first = supervisor.pid("worker")
        # When
        supervisor.kill("worker")
        # Then
        assert wait_until(lambda: is_restarted(supervisor, "worker", 1), limit_seconds=5)
        assert supervisor.pid("worker") != first
        assert wait_until(lambda: again == [("worker", supervisor.pid("worker"))], limit_seconds=5)
        assert exits == [("worker", -signal.SIGKILL)]
    # And a requested stop is neither reported nor undone
    assert exits == [("worker", -signal.SIGKILL)]
    assert not supervisor.alive("worker")


def test_waits_between_restarts_grow(tmp_path: Path) -> None:
    # Given a child that ends at once
    deaths: list[float] = []
    supervisor = Supervisor(tmp_path, on_exit=lambda *_: deaths.append(time.monotonic()))
    with supervisor:
        # When
        supervisor.start(ChildProcess("broken", ["/bin/false"], {}))
        assert wait_until(lambda: len(deaths) >= 4, limit_seconds=10)
    # Then the waits are at least 0.1, 0.2 and 0.4 s
    waits = [later - earlier for earlier, later in itertools.pairwise(deaths)]
    assert waits[0] >= 0.1
    assert waits[1] >= 0.2
    assert waits[2] >= 0.4


def test_child_is_restarted_when_the_exit_callback_fails(tmp_path: Path) -> None:
    # Given
    def fail(name: str, code: int) -> None:
        raise RuntimeError(f"{name} {code}")

    with Supervisor(tmp_path, on_exit=fail) as supervisor:
        supervisor.start(ChildProcess("worker", python(_SLEEPS), {}))
        # When
        supervisor.kill("worker")
        # Then
        assert wait_until(lambda: is_restarted(supervisor, "worker", 1), limit_seconds=5)


def test_children_are_stopped_in_the_reverse_order_of_start(tmp_path: Path) -> None:
    # Given
    noted = tmp_path / "noted"
    with Supervisor(tmp_path) as supervisor:
        for name in ("first", "second", "third"):
            ready = tmp_path / f"noted.{name}"
            supervisor.start(
                ChildProcess(name, python(_NOTES, noted, name), {}, ready=ready.exists)
            )
        # When
        supervisor.stop_all()
        # Then
        assert noted.read_text().split() == ["third", "second", "first"]
        assert supervisor.names() == []


def test_stubborn_child_is_killed_after_its_limit(tmp_path: Path) -> None:
    # Given
    ready = tmp_path / "ready"
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(
            ChildProcess("stubborn", python(_STUBBORN, ready), {}, ready.exists, stop_seconds=0.5)
        )
        pid = supervisor.pid("stubborn")
        assert pid is not None
        # When
        began = time.monotonic()
        supervisor.stop("stubborn")
        # Then it is killed after its time limit, and not later
        assert 0.5 <= time.monotonic() - began < 5
        assert not is_alive(pid)


def test_grandchildren_die_with_the_child(tmp_path: Path) -> None:
    # Given a child with a child of its own
    note = tmp_path / "grandchild"
    code = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "open(sys.argv[1] + '.new', 'w').write(str(child.pid));"
        "import os; os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(600)"
    )
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(ChildProcess("parent", python(code, note), {}, ready=note.exists))
        grandchild = int(note.read_text())
        # When
        supervisor.kill("parent")
        # Then
        assert wait_until(lambda: not is_alive(grandchild), limit_seconds=5)


@pytest.mark.skipif(sys.platform != "linux", reason="death signals exist on Linux only")
def test_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    # Given
    process, pids = start_supervisor(tmp_path)
    with process:
        assert len(pids) == 2
        assert all(is_alive(pid) for pid in pids)
        # When
        process.kill()
    # Then
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids), limit_seconds=5)


def test_second_ctrl_c_kills_a_stubborn_child_at_once(tmp_path: Path) -> None:
    # Given a stop that waits for a child with a limit of a minute
    process, pids = start_supervisor(tmp_path)
    with process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "received SIGINT\n"
        assert all(is_alive(pid) for pid in pids)
        # When
        process.send_signal(signal.SIGINT)
        # Then
        assert process.wait(10) == 0
        assert process.stdout.readline() == "stopped\n"
    assert not any(is_alive(pid) for pid in pids)


def test_child_that_ends_before_it_is_ready_is_an_error_and_not_restarted(tmp_path: Path) -> None:
    # Given
    child = ChildProcess("broken", python("raise SystemExit(3)"), {}, ready=lambda: False)
    with Supervisor(tmp_path) as supervisor:
        # When / Then
        with pytest.raises(ProcessNotReady, match=r"broken ended \(exit code 3\)"):
            supervisor.start(child)
        assert supervisor.names() == []


def test_child_that_is_never_ready_is_stopped_after_its_limit(tmp_path: Path) -> None:
    # Given
    seen: list[int | None] = []
    child = ChildProcess(
        "slow",
        python(_SLEEPS),
        {},
        ready=lambda: seen.append(supervisor.pid("slow")) is not None,
        ready_seconds=0.3,
    )
    # When / Then
    late = pytest.raises(ProcessNotReady, match=r"slow was not ready within 0\.3 s")
    with Supervisor(tmp_path) as supervisor, late:
        supervisor.start(child)
    assert seen[0] is not None
    assert not is_alive(seen[0])


def test_output_goes_to_a_file_of_its_own_across_restarts(tmp_path: Path) -> None:
    # Given
    log = tmp_path / "logs" / "talker.log"
    code = "import os, time; print('I am', os.environ['WHO'], flush=True); time.sleep(600)"
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start(
            ChildProcess(
                "talker", python(code), {"WHO": "one"}, lambda: "I am one" in log.read_text()
            )
        )
        # When
        supervisor.kill("talker")
        # Then
        assert wait_until(lambda: log.read_text() == "I am one\n" * 2, limit_seconds=5)


def test_output_goes_to_the_terminal_after_the_childs_name(capfd: pytest.CaptureFixture) -> None:
    # Given
    shown = ""

    def is_shown() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return "talker | hello\n" in shown

    # When
    with Supervisor() as supervisor:
        supervisor.start(
            ChildProcess("talker", python("print('hello'); input()"), dict(os.environ))
        )
        # Then
        assert wait_until(is_shown, limit_seconds=5)


def test_no_thread_is_left_when_all_is_stopped(tmp_path: Path) -> None:
    # Given
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(ChildProcess("one", python(_SLEEPS), {}))
        supervisor.start(ChildProcess("two", python(_SLEEPS), {}))
    # When / Then
    assert not [thread for thread in threading.enumerate() if "keeper" in thread.name]
