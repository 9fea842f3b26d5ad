"""The ingress's front: a webhook goes straight to its door, everything else to Starlette."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ingress.http.responses import on_error


class Front:
    """Spares webhooks the routing and the middleware that they need nothing of.

    What they need of it stands here: a bug in a door is answered with 500, as everywhere.
    """

    def __init__(self, app: ASGIApp, doors: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            door = self._doors.get(scope["path"])
            if door is not None:
                try:
                    await door(scope, receive, send)
                except Exception as error:
                    response = await on_error(Request(scope), error)
                    await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
