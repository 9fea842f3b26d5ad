"""The ingress's lower bound: empty Starlette routes, served with the same options.

Run as `python -m benchmarks.empty_server PORT`.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def empty(_request: Request) -> Response:
    return Response()


def serve(routes: list[Route], port: int) -> None:
    """Serve the routes, and the supervisor's /readyz, until SIGTERM."""
    uvicorn.run(
        Starlette(routes=[*routes, Route("/readyz", empty, methods=["GET"])]),
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        http="httptools",
        loop="uvloop",
    )


def main() -> None:
    """Serve empty routes at the paths of a webhook and of the status check."""
    paths = ("/webhooks/paypal", "/api/vapi/webhook/status-check")
    serve([Route(path, empty, methods=["POST"]) for path in paths], int(sys.argv[1]))


if __name__ == "__main__":
    main()
