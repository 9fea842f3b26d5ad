"""The house: which of its processes are away."""

from __future__ import annotations

import os
import socket
import sys

from base.clock import wait_until
from chaos.house import House, Plan
from local.supervisor import Process, Supervisor
from tests.chaos.yes import answering_yes


def test_a_process_that_is_down_and_an_ingress_that_cannot_store_are_away(tmp_path):
    # Given a worker that runs and one that ends at once, an ingress that can store and one that
    # nobody reaches
    house = House(Plan(), folder=tmp_path)
    house.supervisor = Supervisor()
    with answering_yes() as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        house.ports = [port, closed.getsockname()[1]]
        try:
            for name, words in (("safety-1", "import time; time.sleep(600)"), ("safety-2", "1/0")):
                argv = [sys.executable, "-c", words]
                house.supervisor.start(Process(name, argv, dict(os.environ)))
            # Then those two are away whenever the one is not being started again, and the house is
            # not ready
            away = ["safety-2", "ingress-2"]
            assert wait_until(lambda: house.away() == away, limit_seconds=20)
            assert not house.ready()
        finally:
            house.supervisor.stop_all()
