"""The real ingress over HTTP, on the test's own database, fed by the sandbox."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import httpx
import pytest
import uvicorn

from base.clock import wait_until
from ingress.app import IngressLimits, build_app
from ingress.http.protocol import BoundedProtocol
from providers import registry
from tests.ingress.api.backend import Backend
from tests.ingress.calls.callers import Caller, Signer
from tests.ingress.support import Ingress


@pytest.fixture
def start_ingress(sandbox):
    """Start an ingress with given settings; the sandbox delivers to the newest one."""
    with contextlib.ExitStack() as stack:
        yield lambda settings, **limits: stack.enter_context(_serving(settings, sandbox, **limits))


@pytest.fixture
def start_far(start_ingress, settings, way):
    """Start an ingress whose database connection can be slowed down or cut."""
    return lambda: start_ingress(settings.model_copy(update={"database_url": way.url}))


@pytest.fixture
def far(start_far):
    return start_far()


@pytest.fixture
def caller(world):
    return Caller(world)


@pytest.fixture
def signer(tmp_path):
    return Signer(tmp_path / "keys.json")


@pytest.fixture
def ingress(start_ingress, settings, signer):
    """An ingress with more time for live calls, since no test measures time."""
    with_keys = settings.model_copy(update={"api_jwks_file": signer.path})
    return start_ingress(with_keys, answer_seconds=15)


@pytest.fixture
def backend(world, ingress, signer):
    return Backend(world, ingress, signer)


@contextlib.contextmanager
def _serving(settings, sandbox, **limits):
    app = build_app(settings, registry.build(settings), IngressLimits(**limits))
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, http=BoundedProtocol
        )
    )
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    assert wait_until(lambda: server.started, limit_seconds=20)
    url = f"http://127.0.0.1:{port}"
    sandbox.control("POST", "/target", {"url": url})
    # Without the root certificates, which take 50 ms to load: nothing here is encrypted.
    with httpx.Client(
        base_url=url, trust_env=False, timeout=20, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ) as client:
        yield Ingress(url, port, client, sandbox)
    server.should_exit = True
    thread.join()
    listener.close()
