"""uvicorn's HTTP protocol, with limits on what no route reads of a request.

Neither uvicorn nor its parser limits a request head, the trailers after a chunked body, or bytes
sent after an answer. Both their size and their time are unlimited. One connection could fill the
memory, and idle ones could use up all connections. A proxy in front should also limit them per
sender.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress.http.delivery import WHOLE

#: Most bytes of a request line and headers. PayPal's have under 3 KiB.
HEAD_BYTES_MAX = 65_536
#: Seconds that a connection has to send them, from its opening or the request's first byte.
HEAD_SECONDS = 10.0
#: Seconds that a sender has to read an answer given before its body was whole.
LINGER_SECONDS = 2.0


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too large or too slow, without an answer.

    The size limit also applies to bytes between and after the pieces of a body: chunk lengths and
    trailers. Trailers are dropped. If a request is answered before its body is whole, it is the
    last request of its connection.
    """

    #: Bytes since the request began, or since the last piece of its body.
    _bare_bytes = 0
    _in_head = True
    _in_body = False
    _has_new_body = False
    #: Whether the connection may serve further requests once the current body is whole.
    _may_go_on = True
    _is_over = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time limit of the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count bytes that belong to no body, and close the connection at the limit."""
        if self._is_over:
            return
        before = self.scope
        was_idle = not (self._in_head or self._in_body)
        self._has_new_body = False
        super().data_received(data)
        # A request that arrived whole in this piece is over and needs no limit. Empty lines before
        # a head start no request, because the parser skips them silently; they are counted here.
        if self._in_head or self._in_body or (was_idle and self.scope is before):
            self._count(len(data))

    def on_message_begin(self) -> None:
        """Start counting the next head on the connection."""
        super().on_message_begin()
        self._stop_waiting()
        self._in_head, self._bare_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head, and drop one of the trailers."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop the timer, because the head is whole."""
        self._stop_waiting()
        self._in_head = False
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Note that a piece of a body has arrived. The route limits the body."""
        self._has_new_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Mark the request as whole."""
        self._in_body = False
        cycle = self.cycle
        if cycle.transport is not self.transport and not cycle.response_started:
            # The body arrived in pieces but before its answer: the connection may stay open.
            cycle.transport, cycle.keep_alive = self.transport, self._may_go_on
        super().on_message_complete()
        self.scope[WHOLE] = True  # type: ignore[literal-required]

    def shutdown(self) -> None:
        """Make the current request the last one of its connection."""
        self._may_go_on = False
        super().shutdown()

    def linger(self) -> None:
        """Close the connection after the sender has had time to read the answer.

        If it were closed at once with bytes unread, the kernel would reset it, and the answer would
        be lost. Bytes that still arrive are dropped.
        """
        if self._is_over or self.transport.is_closing():
            return
        self._is_over = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._stop_waiting()
        # Aborted, not closed: close() would wait for a sender that does not read.
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _count(self, size: int) -> None:
        if not self._in_body:
            self._wait_for_head()
        elif self.cycle.transport is self.transport:
            # Until the body is whole, an answer ends the connection.
            self._may_go_on = self.cycle.keep_alive
            self.cycle.transport, self.cycle.keep_alive = _Lingering(self), False
        self._bare_bytes = 0 if self._has_new_body else self._bare_bytes + size
        if self._bare_bytes > HEAD_BYTES_MAX:
            self.transport.close()

    def _wait_for_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Lingering(asyncio.Transport):
    """The transport for an answer to an unfinished request: close() lingers."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: Any) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.linger()
