"""The system under test: which of its processes are down."""

from __future__ import annotations

import os
import socket
import sys

from base.clock import wait_until
from chaos.system import Plan, System
from local.supervisor import ChildProcess, Supervisor
from tests.chaos.accepting_server import accepting_server


def test_away_lists_a_dead_process_and_a_mute_ingress(tmp_path):
    # Given a worker that runs and one that ends at once, an ingress that can store events and one
    # that cannot be reached
    system = System(Plan(), folder=tmp_path)
    system.supervisor = Supervisor()
    with accepting_server() as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        system.ports = [port, closed.getsockname()[1]]
        try:
            for name, code in (("safety-1", "import signal; signal.pause()"), ("safety-2", "1/0")):
                argv = [sys.executable, "-c", code]
                system.supervisor.start(ChildProcess(name, argv, dict(os.environ)))
            # Then the second worker and the second ingress are reported as down, except while the
            # worker is being restarted, and the system is not ready
            away = ["safety-2", "ingress-2"]
            assert wait_until(lambda: system.away() == away, limit_seconds=20)
            assert not system.is_ready()
        finally:
            system.supervisor.stop_all()
