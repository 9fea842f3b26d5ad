"""The proxy between processes and servers: what each mode does to a connection."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from base.clock import wait_until
from chaos.child import Child

LIMIT_SECONDS = 20.0


@pytest.fixture
def echo():
    """A server that echoes what it receives; the fixture yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1024):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(tmp_path):
    child = Child("chaos.proxy", {}, tmp_path / "proxy.log")
    yield child
    child.stop()


@pytest.fixture
def connect(proxy, echo):
    """A function that opens new connections through the proxy's route "r"."""
    port = proxy.ask(route="r", do="listen", targets=["127.0.0.1:1", echo])["port"]
    opened = []

    def make() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def send_and_receive(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    return connection.recv(1024)


def is_broken(connection: socket.socket) -> bool:
    try:
        return connection.recv(1024) == b""
    except ConnectionError:
        return True


def test_open_route_passes_both_ways_and_skips_a_server_that_is_down(connect):
    # Given a route with two servers, of which the first is unreachable; when a client sends data
    # Then the second server answers
    assert send_and_receive(connect(), b"hello") == b"hello"


def test_cut_breaks_open_connections_and_no_later_ones(proxy, connect):
    # Given an open connection
    connection = connect()
    assert send_and_receive(connection, b"one") == b"one"

    # When the route is cut
    proxy.ask(route="r", do="cut")

    # Then the connection is broken, and a new one is not
    assert is_broken(connection)
    assert send_and_receive(connect(), b"two") == b"two"


def test_refusing_route_accepts_no_connection_until_open(proxy, connect):
    # When the route refuses
    standing = connect()
    assert send_and_receive(standing, b"one") == b"one"
    proxy.ask(route="r", do="refuse")

    # Then old connections and new ones are broken
    assert is_broken(standing)
    assert is_broken(connect())
    # And once it is open again, it serves
    proxy.ask(route="r", do="open")
    assert send_and_receive(connect(), b"two") == b"two"


def test_stalled_route_keeps_data_and_passes_it_on_once_open(proxy, connect):
    # Given a stalled route
    connection = connect()
    assert send_and_receive(connection, b"one") == b"one"
    proxy.ask(route="r", do="stall")

    # When a client sends data, no answer arrives
    connection.sendall(b"two")
    connection.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connection.recv(1024)

    # Then the data arrives once the route is open
    connection.settimeout(LIMIT_SECONDS)
    proxy.ask(route="r", do="open")
    assert connection.recv(1024) == b"two"


def test_slow_route_keeps_the_order(proxy, connect):
    # Given a slow route
    connection = connect()
    proxy.ask(route="r", do="delay", seconds=0.05)

    # When much data is sent at once and the route is opened in the middle of it
    for number in range(50):
        connection.sendall(b"%04d" % number)
    proxy.ask(route="r", do="open")
    for number in range(50, 100):
        connection.sendall(b"%04d" % number)

    # Then all of it returns in order
    received = b""
    while len(received) < 400:
        received += connection.recv(1024)
    assert received == b"".join(b"%04d" % number for number in range(100))


def test_deaf_route_loses_answers_and_nothing_else(proxy, connect, echo):
    # Given a deaf route
    connection = connect()
    assert send_and_receive(connection, b"one") == b"one"
    proxy.ask(route="r", do="deaf")

    # When a client sends data, no answer arrives
    connection.sendall(b"two")
    connection.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connection.recv(1024)

    # Then later data is answered once the route is open, and the lost answer stays lost
    connection.settimeout(LIMIT_SECONDS)
    proxy.ask(route="r", do="open")
    assert send_and_receive(connection, b"three") == b"three"


def test_proxy_ends_with_its_parent_process(proxy):
    # When its standard input ends
    proxy.stop()

    # Then the process has ended
    assert wait_until(lambda: proxy.is_over, limit_seconds=LIMIT_SECONDS)
