from __future__ import annotations

from collections.abc import Iterator

import pytest

from providers.paypal.api import PayPalApi
from tests.providers.support import Loopback


@pytest.fixture
def api(loopback: Loopback) -> Iterator[PayPalApi]:
    built = PayPalApi(loopback.url, "client", "secret", window_seconds=10)
    yield built
    built.close()
