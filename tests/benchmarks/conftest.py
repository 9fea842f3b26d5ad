"""The ingress that the tests of the ingress use, and a benchmark's house of the test's servers."""

from __future__ import annotations

import pytest

from benchmarks.house import House
from benchmarks.server import Bench
from local.supervisor import Supervisor
from tests.ingress.conftest import ingress, signer, start_ingress

__all__ = ["ingress", "signer", "start_ingress"]


@pytest.fixture
def bench(urls):
    return Bench(urls.owner_url, urls.app_url)


@pytest.fixture
def house(bench, urls, sandbox, tmp_path):
    """Whose processes are the test's own: the ingress and the worker that is called by hand."""
    with Supervisor(tmp_path) as supervisor:
        yield House(bench, urls.redis_url, {}, sandbox.info, supervisor)
