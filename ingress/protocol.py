"""uvicorn's HTTP protocol with bounds on what comes before a request is one: its head.

Neither uvicorn nor its parser bounds a head in size or time, so that one connection could fill the
memory, and silent ones hold every place. A proxy in front should bound both too, by sender.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress.delivery import WHOLE

#: Bytes of a request line and headers; PayPal's have under 3 KiB.
HEAD_BYTES_MAX = 65_536
#: Seconds a connection may take to send them, from its opening or the request's first byte.
HEAD_SECONDS = 10.0


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose head is too large or too slow; nobody is answered."""

    _head_bytes = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """This function will begin to wait for the first head."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """This function will stop waiting."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """This function will count what belongs to a head, and close when that is too much."""
        super().data_received(data)
        if self._in_head:
            # A head that came whole in this piece has ended by now, and needed no timer.
            self._wait_for_head()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.transport.close()

    def on_message_begin(self) -> None:
        """This function will begin to wait for a further head on the same connection."""
        super().on_message_begin()
        self._end_head()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """This function will stop waiting: the head is whole."""
        self._end_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """This function will note that the whole request has come."""
        super().on_message_complete()
        self.scope[WHOLE] = True  # type: ignore[literal-required]

    def _wait_for_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _end_head(self) -> None:
        self._in_head = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
