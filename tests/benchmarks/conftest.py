"""The ingress of the ingress tests, and a `System` that uses the test's servers."""

from __future__ import annotations

import pytest

from benchmarks.server import Bench
from benchmarks.system import System
from local.supervisor import Supervisor
from tests.ingress.conftest import ingress, signer, start_ingress

__all__ = ["ingress", "signer", "start_ingress"]


@pytest.fixture
def bench(urls):
    return Bench(urls.owner_url, urls.app_url)


@pytest.fixture
def system(bench, urls, sandbox, tmp_path):
    """A `System` whose ingress and worker are started by the test itself."""
    with Supervisor(tmp_path) as supervisor:
        yield System(bench, urls.redis_url, {}, sandbox.info, supervisor)
