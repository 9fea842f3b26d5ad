"""A TCP proxy that can cut, stall or delay connections, or drop every answer.

It runs between the processes and their servers, and between senders and the ingress. It is a
process of its own, `python -m chaos.proxy`, so that no other work delays traffic by accident.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import cast

from chaos.child import Message, serve_orders

#: How a route treats traffic. deaf: the servers' answers are lost.
MODES = ("open", "refuse", "stall", "delay", "deaf")


class Route:
    """One address to listen on, the servers behind it, and its current mode."""

    def __init__(self, targets: list[str]) -> None:
        self._targets = deque(targets)
        self.mode = "open"
        self.delay_seconds = 0.0
        self.ends: set[End] = set()

    async def connect(self, client: End) -> None:
        """Connect a client to the next server that accepts it."""
        loop = asyncio.get_running_loop()
        for _ in range(len(self._targets)):
            target = self._targets[0]
            self._targets.rotate(-1)
            try:
                if target.startswith("/"):
                    _, end = await loop.create_unix_connection(lambda: End(self, True), target)
                else:
                    host, port = target.split(":")
                    _, end = await loop.create_connection(lambda: End(self, True), host, int(port))
            except OSError:
                continue
            client.join(end)
            return
        client.abort()

    def set(self, mode: str, delay_seconds: float) -> None:
        """Set the mode of existing and new connections."""
        self.mode, self.delay_seconds = mode, delay_seconds
        for end in list(self.ends):
            end.obey()

    def cut(self) -> None:
        """Break every connection and discard the data in transit."""
        for end in list(self.ends):
            end.abort()


class End(asyncio.Protocol):
    """One end of a joined pair. Its peer writes what it reads."""

    def __init__(self, route: Route, is_server: bool) -> None:
        self._route = route
        self._is_server = is_server
        self._transport: asyncio.Transport | None = None
        self._peer: End | None = None
        #: Data that waits for its delay to pass. None is the end of the stream.
        self._waiting: deque[tuple[float, bytes | None]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._route.ends.add(self)
        if self._is_server:
            return
        if self._route.mode == "refuse":
            self.abort()
            return
        self._transport.pause_reading()
        task = asyncio.ensure_future(self._route.connect(self))
        _keep_reference(task)

    def join(self, server: End) -> None:
        """Join the two ends. Nothing is read from the client before that."""
        self._peer, server._peer = server, self
        if self._transport is None or self._transport.is_closing():
            server.abort()
            return
        self._transport.resume_reading()
        for end in (self, server):
            end.obey()

    def obey(self) -> None:
        """Pause or resume reading, as the route's mode requires."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._peer is None:
            return
        if self._route.mode == "stall":
            transport.pause_reading()
        else:
            transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._is_server and self._route.mode == "deaf":
            return
        self._send(data)

    def eof_received(self) -> bool:
        self._send(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._route.ends.discard(self)
        if not self._waiting:
            self._end_peer(abort=exc is not None)
        elif exc is not None:
            self._waiting.append((0.0, None))

    def abort(self) -> None:
        """Break the connection at once."""
        self._waiting.clear()
        if self._transport is not None:
            self._transport.abort()

    def _send(self, data: bytes | None) -> None:
        seconds = self._route.delay_seconds if self._route.mode == "delay" else 0.0
        if not self._waiting and not seconds:
            self._write(data)
            return
        loop = asyncio.get_running_loop()
        # Data is never sent before earlier data.
        send_at = max(loop.time() + seconds, self._waiting[-1][0] if self._waiting else 0.0)
        self._waiting.append((send_at, data))
        if len(self._waiting) == 1:
            loop.call_at(send_at, self._send_due)

    def _send_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self._write(self._waiting.popleft()[1])
        if self._waiting:
            loop.call_at(self._waiting[0][0], self._send_due)

    def _write(self, data: bytes | None) -> None:
        if data is None:
            self._end_peer(abort=False)
        elif self._peer is not None and self._peer._transport is not None:
            self._peer._transport.write(data)

    def _end_peer(self, *, abort: bool) -> None:
        for end in (self._peer, self):
            if end is None or end._transport is None or end._transport.is_closing():
                continue
            if abort:
                end._transport.abort()
            else:
                end._transport.close()


_tasks: set[asyncio.Future[None]] = set()


def _keep_reference(task: asyncio.Future[None]) -> None:
    # Without a reference, a task may be garbage-collected before it has run.
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class Proxy:
    """The routes by name, on an event loop in its own thread.

    Another thread sends the orders.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._routes: dict[str, Route] = {}
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def answer(self, order: Message) -> Message:
        """Carry out one order, and return once it is in effect."""
        done = asyncio.run_coroutine_threadsafe(self._carry_out(order), self._loop)
        return done.result()

    async def _carry_out(self, order: Message) -> Message:
        name = order["route"]
        match order["do"]:
            case "listen":
                route = self._routes[name] = Route(order["targets"])
                server = await self._loop.create_server(lambda: End(route, False), "127.0.0.1", 0)
                return {"port": server.sockets[0].getsockname()[1]}
            case "cut":
                self._routes[name].cut()
            case mode if mode in MODES:
                self._routes[name].set(mode, order.get("seconds", 0.0))
                if mode == "refuse":
                    self._routes[name].cut()
        return {}


if __name__ == "__main__":
    serve_orders(Proxy().answer)
