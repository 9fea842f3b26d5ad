"""The ingress's baseline: empty Starlette routes, served with the same options.

Run as `python -m benchmarks.empty_server PORT`.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def _empty(_request: Request) -> Response:
    return Response()


def main() -> None:
    """Serve until SIGTERM."""
    app = Starlette(
        routes=[
            Route("/webhooks/paypal", _empty, methods=["POST"]),
            Route("/api/vapi/webhook/status-check", _empty, methods=["POST"]),
            Route("/readyz", _empty, methods=["GET"]),
        ]
    )
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        http="httptools",
        loop="uvloop",
    )


if __name__ == "__main__":
    main()
