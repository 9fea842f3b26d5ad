"""A server that is not Redis, in Redis's place."""

from __future__ import annotations

import contextlib
import socketserver
import threading


@contextlib.contextmanager
def answering(answer):
    """Start a server that answers everything with the same bytes, as a bad proxy does."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                while self.request.recv(4096):
                    self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
