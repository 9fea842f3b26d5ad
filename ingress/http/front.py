"""Passes webhooks straight to their endpoints and all other requests to Starlette."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ingress.http.responses import on_error


class Front:
    """Spares webhooks Starlette's routing and middleware, which they do not need.

    It answers a bug in a webhook endpoint with 500, as the middleware does elsewhere.
    """

    def __init__(self, app: ASGIApp, entry_points: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._entry_points = entry_points

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            entry_point = self._entry_points.get(scope["path"])
            if entry_point is not None:
                try:
                    await entry_point(scope, receive, send)
                except Exception as error:
                    response = await on_error(Request(scope), error)
                    await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
