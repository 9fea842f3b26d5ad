from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.support import Loopback, Reply
from tests.support.sandbox import Heard, House


class Hearing:
    """What the stand-in has sent to where the ingress would be."""

    def __init__(self, loopback: Loopback) -> None:
        self.heard: list[Heard] = []
        loopback.answer = self._answer

    def _answer(self, asked) -> Reply:
        self.heard.append(Heard(asked.path, asked.headers, asked.body))
        return Reply(200, b"{}")


@pytest.fixture
def listener(sandbox: House, loopback: Loopback) -> Iterator[Hearing]:
    """Stands where the ingress would; the stand-in's target until the test is over."""
    before = sandbox.control("GET", "/info")["target"]
    sandbox.control("POST", "/target", {"url": loopback.url})
    yield Hearing(loopback)
    sandbox.control("POST", "/reset")
    sandbox.control("POST", "/target", {"url": before})
