"""The load generator: prepared requests over connections that stay open.

Each connection has one request at a time. One thread with epoll serves all connections and parses
only the end and the status of a response. The server is therefore the bottleneck. `busy` shows
whether that is true.
"""

from __future__ import annotations

import re
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
#: Seconds without any response, after which the server counts as dead.
_SILENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Paced:
    """Seconds that each request took since it was due, and the response's body."""

    seconds: list[float]
    bodies: list[bytes]


@dataclass(frozen=True)
class Sent:
    """How many requests were answered 200, in how long, and how busy the sender was."""

    answered: int
    seconds: float
    busy: float

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.answered / self.seconds


def send_all(
    port: int, requests: Iterable[bytes], *, connections: int, seconds: float = float("inf")
) -> Sent:
    """Send the requests, as many concurrently as there are connections.

    The function ends with the last request. If `seconds` pass before, it ends with the responses to
    the requests sent so far.

    Raises: SystemExit for a response other than 200, or if the server stops responding.
    """
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            connection = stack.enter_context(_connect(port))
            selector.register(connection, selectors.EVENT_READ)
        return _exchange(selector, iter(requests), seconds)


def _exchange(selector: selectors.BaseSelector, waiting: Iterator[bytes], seconds: float) -> Sent:
    began, began_cpu = time.perf_counter(), time.thread_time()
    ends = began + seconds
    for key in list(selector.get_map().values()):
        _send_next(selector, key.fileobj, waiting)
    answered = 0
    while selector.get_map():
        ready = selector.select(_SILENCE_SECONDS)
        if not ready:
            raise SystemExit("the server under measurement does not answer")
        is_over = time.perf_counter() >= ends
        for key, _ in ready:
            _check(key.fileobj.recv(65_536), key.fileobj)  # type: ignore[union-attr]
            answered += 1
            if is_over:
                _close(selector, key.fileobj)
            else:
                _send_next(selector, key.fileobj, waiting)
    took = time.perf_counter() - began
    return Sent(answered, took, (time.thread_time() - began_cpu) / took)


def drip(port: int, requests: list[bytes], *, per_second: float) -> None:
    """Send the requests one after the other at a steady rate.

    Raises: SystemExit for a response other than 200.
    """
    with _connect(port) as connection:
        began = time.monotonic()
        for number, request in enumerate(requests):
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            connection.sendall(request)
            _check(connection.recv(65_536), connection)


def pace(port: int, requests: list[bytes], *, per_second: float, connections: int) -> Paced:
    """Send each request at its own time and return how long each took.

    The load is open-loop: the time counts from when a request was due. If a request has to wait for
    earlier responses, that delay is measured and not lost.

    Raises: SystemExit for a response other than 200.
    """
    paced = Paced([0.0] * len(requests), [b""] * len(requests))
    began = time.monotonic() + 0.2
    failed: list[BaseException] = []

    def send(first: int) -> None:
        try:
            with _connect(port) as connection:
                for number in range(first, len(requests), connections):
                    due = began + number / per_second
                    time.sleep(max(0.0, due - time.monotonic()))
                    connection.sendall(requests[number])
                    answer = _check(connection.recv(65_536), connection)
                    paced.seconds[number] = time.monotonic() - due
                    paced.bodies[number] = answer.partition(b"\r\n\r\n")[2]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=send, args=(first,)) for first in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"a sender failed: {failed[0]}")
    return paced


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send_next(
    selector: selectors.BaseSelector, connection: object, waiting: Iterator[bytes]
) -> None:
    request = next(waiting, None)
    if request is None:
        _close(selector, connection)
    else:
        connection.sendall(request)  # type: ignore[attr-defined]


def _close(selector: selectors.BaseSelector, connection: object) -> None:
    selector.unregister(connection)  # type: ignore[arg-type]
    connection.close()  # type: ignore[attr-defined]


def _check(answer: bytes, connection: object) -> bytes:
    """Read the rest of a response, which is rarely in parts, and check its status."""
    while not _is_whole(answer):
        more = connection.recv(65_536)  # type: ignore[attr-defined]
        if not more:
            raise SystemExit(f"broken off: {answer[:200]!r}")
        answer += more
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"not accepted: {answer[:400]!r}")
    return answer


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    length = _LENGTH.search(answer)
    return end >= 0 and (length is None or len(answer) >= end + 4 + int(length[1]))
