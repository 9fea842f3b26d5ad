"""Limits of size and time on those parts of a request that no route reads."""

from __future__ import annotations

import socket
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from base.clock import wait_until
from ingress.http import protocol
from ingress.http.protocol import BoundedProtocol


@pytest.fixture
def server(monkeypatch):
    """A server whose `/unread` route ignores the body, with half a second for headers."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)

    async def answer(request):
        size = len(await request.body())
        return PlainTextResponse(f"{size} {' '.join(request.headers)}")

    async def refuse(_request):
        return PlainTextResponse("no", 413)

    app = Starlette(
        routes=[
            Route("/", answer, methods=["GET", "POST"]),
            Route("/unread", refuse, methods=["POST"]),
        ]
    )
    # The server's own idle limit is long, so a connection that closes early was closed by our
    # protocol.
    config = uvicorn.Config(
        app,
        port=0,
        http=BoundedProtocol,
        log_config=None,
        lifespan="off",
        timeout_keep_alive=60,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert wait_until(lambda: server.started, limit_seconds=10)
    yield server
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture
def address(server):
    return server.servers[0].sockets[0].getsockname()


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes; fail after 10 seconds."""
    connection.settimeout(10)
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionError:
        pass
    return received


def test_endless_head_is_cut_off(address):
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
        with pytest.raises(OSError):
            for _ in range(10_000):
                connection.sendall(b"a: " + b"b" * 1_000 + b"\r\n")


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_silent_connection_is_closed(address, begun):
    with socket.create_connection(address) as connection:
        connection.sendall(begun)
        assert read_all(connection) == b""


def test_large_body_and_a_second_request_on_the_connection_are_served(address):
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection(address) as connection:
        connection.sendall(head + b"x" * 300_000 + last)
        received = read_all(connection)
    assert received.count(b"200 OK") == 2
    assert b"300000" in received


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"


def is_cut_off(connection: socket.socket, data: bytes) -> bool:
    """Return whether the other side closes while we send and read nothing."""

    def fails():
        try:
            connection.sendall(data)
        except OSError:
            return True
        return False

    return wait_until(fails, limit_seconds=10)


def test_trailers_are_dropped_and_the_connection_is_kept(address):
    # Given a body in chunks with a trailer, and a second request
    trailer = b"0\r\nx-late: y\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nhost: x\r\nx-second: y\r\nconnection: close\r\n\r\n"
    with socket.create_connection(address) as connection:
        # When they arrive in pieces
        for piece in (CHUNKED, trailer, last):
            connection.sendall(piece)
        received = read_all(connection)

    # Then both are served, and no route sees the trailer
    assert received.count(b"200 OK") == 2
    assert b"2 host transfer-encoding" in received
    assert b"x-second" in received
    assert b"x-late" not in received


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"0\r\n", b"a: b\r\n" * 4_000),
        (b"0\r\na: ", b"b" * 24_000),
        (b"1", b"0" * 24_000),
        (b"1;", b"a" * 24_000),
    ],
    ids=["trailers", "a trailer", "a length", "an extension"],
)
def test_endless_data_in_place_of_a_body_is_cut_off(address, begun, more):
    with socket.create_connection(address) as connection:
        connection.sendall(CHUNKED + begun)
        assert is_cut_off(connection, more)


def test_chunked_body_may_exceed_the_bound_on_heads(address):
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    with socket.create_connection(address) as connection:
        connection.sendall(CHUNKED.replace(b"host: x", b"connection: close"))
        for _ in range(20):
            connection.sendall(chunk)
        connection.sendall(b"0\r\n\r\n")
        assert b"%d connection" % (2 + 20 * 0x4000) in read_all(connection)


def test_empty_lines_after_an_answer_do_not_keep_a_connection(address):
    with socket.create_connection(address) as connection:
        # Given a connection whose request was answered
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        # When only empty lines follow, Then they count as no request and the connection is closed
        assert is_cut_off(connection, b"\r\n")


def refused(connection: socket.socket) -> bytes:
    """Send the start of a body that no route reads, and return the whole answer."""
    connection.sendall(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nx")
    return read_all(connection)


def test_answer_to_an_unread_body_closes_the_connection(address):
    with socket.create_connection(address) as connection:
        answer = refused(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"\r\n\r\nno")


def test_sender_that_is_still_writing_receives_the_answer(address, monkeypatch):
    # Given a server that reads on for a long time after its answer
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 60.0)
    with socket.create_connection(address) as connection:
        assert refused(connection).endswith(b"no")
        # When the sender sends more of the body, Then the connection is not reset
        for _ in range(100):
            connection.sendall(b"x" * 10_000)


def test_unread_body_does_not_keep_a_connection(address, server, monkeypatch):
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.2)
    with socket.create_connection(address) as connection:
        assert refused(connection).endswith(b"no")
        assert is_cut_off(connection, b"x")
        assert wait_until(lambda: not server.server_state.connections, limit_seconds=10)


def test_request_in_transit_is_the_last_when_the_server_stops(address, server):
    with socket.create_connection(address) as connection:
        # Given a body that has begun
        connection.sendall(CHUNKED)
        assert wait_until(lambda: server.server_state.tasks, limit_seconds=10)
        # When the server is asked to stop, and the rest arrives
        server.should_exit = True
        assert wait_until(lambda: not _is_open(address), limit_seconds=10)
        connection.sendall(b"0\r\n\r\n")
        # Then the request is answered, and the answer closes the connection
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer.lower()


def _is_open(address) -> bool:
    try:
        socket.create_connection(address).close()
    except OSError:
        return False
    return True
