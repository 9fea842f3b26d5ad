from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.support import Loopback, Reply
from tests.support.sandbox import ReceivedRequest, RunningSandbox


class RequestRecorder:
    """Records what the sandbox's Vapi sends, in place of the ingress."""

    def __init__(self, loopback: Loopback) -> None:
        self.received: list[ReceivedRequest] = []
        loopback.answer = self._answer

    def _answer(self, asked) -> Reply:
        self.received.append(ReceivedRequest(asked.path, asked.headers, asked.body))
        return Reply(200, b"{}")


@pytest.fixture
def listener(sandbox: RunningSandbox, loopback: Loopback) -> Iterator[RequestRecorder]:
    """Receive what the sandbox sends to the ingress, until the test is over."""
    before = sandbox.control("GET", "/info")["target"]
    sandbox.control("POST", "/target", {"url": loopback.url})
    yield RequestRecorder(loopback)
    sandbox.control("POST", "/reset")
    sandbox.control("POST", "/target", {"url": before})
