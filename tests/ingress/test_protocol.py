"""What comes before a request is one: a head too large or too slow is cut off."""

from __future__ import annotations

import socket
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from base.clock import wait_until
from ingress import protocol
from ingress.protocol import BoundedProtocol


@pytest.fixture
def address(monkeypatch):
    """A server of one route, with half a second for a head."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)

    async def answer(request):
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"])])
    config = uvicorn.Config(app, port=0, http=BoundedProtocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert wait_until(lambda: server.started, limit_seconds=10)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = True
    thread.join(timeout=10)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes; the limit is a test that hangs otherwise."""
    connection.settimeout(10)
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionError:
        pass
    return received


def test_an_endless_head_is_cut_off(address):
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
        with pytest.raises(OSError):
            for _ in range(10_000):
                connection.sendall(b"a: " + b"b" * 1_000 + b"\r\n")


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_silent_connection_is_closed(address, begun):
    with socket.create_connection(address) as connection:
        connection.sendall(begun)
        assert read_all(connection) == b""


def test_a_large_body_that_comes_at_once_and_a_second_request_are_served(address):
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(address) as connection:
        connection.sendall(head + b"x" * 300_000 + last)
        received = read_all(connection)
    assert received.count(b"200 OK") == 2
    assert b"300000" in received
