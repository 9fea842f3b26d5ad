"""The HTTP server of the sandbox, on 127.0.0.1 only.

The server writes its address to sandbox.json and stops at SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.app import build_app
from sandbox.core import Sandbox
from sandbox.gate import TRANSPORT
from sandbox.keys import load_keys, write_private
from sandbox.store import Store
from sandbox.vapi.life import resume


class _Protocol(H11Protocol):
    """Passes the transport to the application, so that a fault can cut the connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        application = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[TRANSPORT] = self.transport
            await application(scope, receive, send)

        self.app = with_transport


class _Server(uvicorn.Server):
    """Writes sandbox.json once the server listens, and exits with code 0 on a signal."""

    def __init__(self, config: uvicorn.Config, sandbox: Sandbox, info_file: Path) -> None:
        super().__init__(config)
        self._sandbox = sandbox
        self._info_file = info_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        write_private(self._info_file, json.dumps(self._sandbox.info(), indent=2).encode())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own method raises the signal again at the end. A clean stop would then look like
        # a kill.
        loop = asyncio.get_running_loop()
        for stop_signal in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop_signal, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True
        self._sandbox.faults.clear()


def serve(port: int, state: Path, target: str, *, keep: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, and keep the resources in `state` if requested.

    Raises: OSError if the port is taken; StateUnreadable.
    """
    # asyncio turns Nagle's algorithm off only if the socket was created with IPPROTO_TCP. Otherwise
    # each response takes 40 ms longer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        info_file = state / "sandbox.json"
        info_file.unlink(missing_ok=True)
        try:
            asyncio.run(_serve(listener, state, target, keep))
        finally:
            info_file.unlink(missing_ok=True)


async def _serve(listener: socket.socket, state: Path, target: str, keep: bool) -> None:
    store = Store(state / "state.db" if keep else None)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sandbox = Sandbox(load_keys(state / "keys"), base_url, target, store)
    resume(sandbox)
    config = uvicorn.Config(
        build_app(sandbox),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        # Do not wait for open requests. A request that a fault leaves unanswered would keep the
        # process alive.
        timeout_graceful_shutdown=0,
    )
    try:
        await _Server(config, sandbox, state / "sandbox.json").serve(sockets=[listener])
    finally:
        await sandbox.courier.close()
        sandbox.save()
        store.close()
