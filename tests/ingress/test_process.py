"""The ingress as its own process: it is killed, stopped, and refuses bad settings."""

from __future__ import annotations

import httpx

from db.models import InboxEvent
from local.ports import free_ports
from tests.ingress.support import Ingress


def serving(processes, sandbox, port):
    url = f"http://127.0.0.1:{port}"
    process = processes.ingress(port)
    sandbox.control("POST", "/target", {"url": url})
    return process, url


def test_accepted_webhook_survives_a_kill(world, processes, sandbox):
    # Given an ingress process that has accepted an event
    (port,) = free_ports(1)
    process, url = serving(processes, sandbox, port)
    with httpx.Client(base_url=url, trust_env=False) as client:
        ingress = Ingress(url, port, client, sandbox)
        message = ingress.genuine()
        assert ingress.send(message).status_code == 200

        # When it is killed and another process replaces it
        process.kill()
        assert len(world.read(InboxEvent)) == 1
        second, _ = serving(processes, sandbox, port)

        # Then the event is stored, and a repeat is recognized
        assert ingress.send(message).json()["verdict"] == "duplicate"

    # And when it is asked to stop, it ends cleanly
    assert second.stop() in (0, -15), second.output()
    assert "Traceback" not in second.output()


def test_missing_or_wrong_webhook_id_is_named_in_one_line(processes):
    for value, text in (
        ("", "missing setting: PAYPAL_WEBHOOK_ID"),
        ("WEBHOOK_ID", "simulator"),
    ):
        refused = processes.command("ingress", PAYPAL_WEBHOOK_ID=value)
        assert refused.ended() == 2
        (line,) = refused.output().splitlines()
        assert "PAYPAL_WEBHOOK_ID" in line and text in line
