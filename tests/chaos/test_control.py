"""The control client works however long the sandbox keeps a connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.control import control_client
from chaos.deliveries import DeliveryQueue
from chaos.journal import Journal

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def closing_idle_connections() -> Iterator[str]:
    """Run a server that closes a connection when a second request arrives on it.

    An idle connection that times out at that very moment behaves like this.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer_once, args=(connection,), daemon=True).start()

    def answer_once(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            connection.sendall(ANSWER)
            connection.recv(65_536)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_control_client_is_answered_when_idle_connections_are_closed(tmp_path):
    # Given a control API that closes an idle connection just as the next request is sent on it
    with closing_idle_connections() as url, control_client(url, timeout_seconds=5) as http:
        deliveries = DeliveryQueue(http, Journal(tmp_path / "journal"))
        # When a traffic thread sends three requests, then each of them is answered
        answers = [deliveries.control("POST", "/paypal/captures", {}) for _ in range(3)]
    assert answers == [{}, {}, {}]
