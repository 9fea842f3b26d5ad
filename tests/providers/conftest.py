from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.support import LIVE_NAME, Clock, Issued, Loopback, issue


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    server = Loopback()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def root() -> Issued:
    return issue("A root", ca=True)


@pytest.fixture(scope="session")
def leaf(root: Issued) -> Issued:
    return issue(LIVE_NAME, root)
