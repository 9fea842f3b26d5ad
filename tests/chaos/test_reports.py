"""Waiting for the end of a call at the sandbox's Vapi, with a limit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.control import control_client
from chaos.deliveries import DeliveryQueue
from chaos.journal import Journal
from chaos.reports import CallNotEnded, wait_for_end
from tests.support.sandbox import SANDBOX_SECONDS


@pytest.fixture
def deliveries(sandbox, tmp_path) -> Iterator[DeliveryQueue]:
    url = f"{sandbox.info['base_url']}/_control"
    with control_client(url, timeout_seconds=SANDBOX_SECONDS) as http:
        yield DeliveryQueue(http, Journal(tmp_path / "journal"))


def start_call(sandbox) -> str:
    call_id: str = sandbox.control("POST", "/vapi/calls", {"organization_id": "org_a"})["id"]
    return call_id


def test_wait_for_end_raises_when_the_call_goes_on(sandbox, deliveries):
    # Given a call that does not end by itself, Then the wait for its end fails at the limit
    call_id = start_call(sandbox)
    with pytest.raises(CallNotEnded, match=f"{call_id} is .* after 0.5 s"):
        wait_for_end(deliveries, call_id, 0.5)


def test_wait_for_end_returns_the_record_of_an_ended_call(sandbox, deliveries):
    call_id = start_call(sandbox)
    sandbox.control("POST", f"/vapi/calls/{call_id}/end", {})
    assert wait_for_end(deliveries, call_id, SANDBOX_SECONDS)["status"] == "ended"
