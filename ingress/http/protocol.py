"""uvicorn's HTTP protocol with bounds on all of a request that no route reads.

Neither uvicorn nor its parser bounds a head, or the trailers behind a chunked body, in size or
time, nor what is sent on after an answer: one connection could fill the memory, and idle ones
hold every place. A proxy in front should bound them too, by sender.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress.http.delivery import WHOLE

#: Bytes of a request line and headers; PayPal's have under 3 KiB.
HEAD_BYTES_MAX = 65_536
#: Seconds a connection may take to send them, from its opening or the request's first byte.
HEAD_SECONDS = 10.0
#: Seconds a sender that was answered before its body was whole has to read the answer.
LINGER_SECONDS = 2.0


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too large or too slow; nobody is answered.

    The same holds for what stands where a body could go on, and is none: trailers, which are read
    by nobody and dropped, and the lengths of chunks. A request that is answered before its body is
    whole is the last of its connection.
    """

    #: Bytes since the request began, or since the last piece of its body.
    _bare_bytes = 0
    _in_head = True
    _in_body = False
    _has_new_body = False
    #: Whether the connection may serve further requests, once the body that is coming is whole.
    _may_go_on = True
    _is_over = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """This function will begin to wait for the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """This function will stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """This function will count what is no body, and close when that is too much."""
        if self._is_over:
            return
        before = self.scope
        was_idle = not (self._in_head or self._in_body)
        self._has_new_body = False
        super().data_received(data)
        # A request that came whole in this piece has ended by now, and needs none of this. Empty
        # lines before a head begin no request: the parser passes them over in silence.
        if self._in_head or self._in_body or (was_idle and self.scope is before):
            self._count(len(data))

    def on_message_begin(self) -> None:
        """This function will begin to wait for a further head on the same connection."""
        super().on_message_begin()
        self._stop_waiting()
        self._in_head, self._bare_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """This function will keep a field of the head, and drop one of the trailers."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """This function will stop waiting: the head is whole."""
        self._stop_waiting()
        self._in_head = False
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """This function will note that a body goes on; its route bounds it."""
        self._has_new_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """This function will note that the whole request has come."""
        self._in_body = False
        cycle = self.cycle
        if cycle.transport is not self.transport and not cycle.response_started:
            # It came in pieces, and before its answer: the connection may serve further ones.
            cycle.transport, cycle.keep_alive = self.transport, self._may_go_on
        super().on_message_complete()
        self.scope[WHOLE] = True  # type: ignore[literal-required]

    def shutdown(self) -> None:
        """This function will make the request that is coming the last one."""
        self._may_go_on = False
        super().shutdown()

    def linger(self) -> None:
        """This function will end the connection once the sender has had time to read its answer.

        Closed at once, with bytes unread, the kernel would reset it, and with it the answer. What
        still comes is dropped.
        """
        if self._is_over or self.transport.is_closing():
            return
        self._is_over = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._stop_waiting()
        # Not closed: that would wait for a sender that does not read.
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
    """The transport as the answer to a request that is not whole sees it: closed with patience."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: Any) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        self._protocol.linger()
