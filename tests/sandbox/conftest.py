"""The real sandbox in its own process, and a listener that records its webhooks."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.support.sandbox import SANDBOX_SECONDS, Listener, ReceivedRequest


class Server(ThreadingHTTPServer):
    #: Hundreds of calls send messages at the same time.
    request_queue_size = 512


@pytest.fixture
def listener(sandbox):
    listener = Listener("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = listener.answer(ReceivedRequest(self.path, dict(self.headers), body))
            # The sender may have given up by now, which does not matter to the listener.
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    listener.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    sandbox.control("POST", "/target", {"url": listener.url})
    yield listener
    sandbox.control("POST", "/reset")
    for reply in listener.replies.values():
        if reply.wait is not None:
            reply.wait.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def paypal(sandbox):
    """A client of PayPal's stand-in that has a token."""
    known = sandbox.info["paypal"]
    with httpx.Client(
        base_url=known["base_url"], trust_env=False, timeout=SANDBOX_SECONDS
    ) as client:
        answer = client.post(
            "/v1/oauth2/token",
            auth=(known["client_id"], known["client_secret"]),
            data={"grant_type": "client_credentials"},
        )
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


@pytest.fixture
def account(sandbox):
    return sandbox.control("POST", "/twilio/subaccounts", {"friendly_name": "Acme"})


@pytest.fixture
def assistant(sandbox):
    return sandbox.control("POST", "/vapi/assistants", {})


@pytest.fixture
def number(sandbox, account):
    """A number at a Twilio subaccount, without an assistant.

    Its calls request an assistant from the ingress.
    """
    return sandbox.control("POST", "/vapi/numbers", {"twilio_sid": account["sid"]})
