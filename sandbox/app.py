"""The sandbox's application: one port, one prefix per provider, the control plane."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import sandbox.paypal.api
import sandbox.stripe.api
import sandbox.twilio.api
import sandbox.vapi.api
from sandbox.control import Control
from sandbox.core import Sandbox
from sandbox.exchange import Answer, Call, json_answer
from sandbox.gate import Gate, Handler
from sandbox.paypal.control import PayPalControl
from sandbox.stripe.control import StripeControl
from sandbox.twilio.control import TwilioControl
from sandbox.vapi.control import VapiCallControl
from sandbox.vapi.control_setup import VapiSetupControl

_ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def build_app(house: Sandbox) -> Starlette:
    """Build the application that serves one sandbox."""
    gate = Gate(house)
    routes: list[BaseRoute] = [
        _provider(gate, "paypal", sandbox.paypal.api.operations(), _not_found),
        _provider(gate, "twilio", sandbox.twilio.api.operations(), sandbox.twilio.api.not_found),
        _provider(gate, "stripe", sandbox.stripe.api.operations(), _not_found),
        _provider(gate, "vapi", sandbox.vapi.api.operations(), _not_found),
        Mount(
            "/_control",
            routes=[
                Mount("/paypal", routes=PayPalControl(house).routes()),
                Mount("/twilio", routes=TwilioControl(house).routes()),
                Mount("/stripe", routes=StripeControl(house).routes()),
                Mount(
                    "/vapi",
                    routes=[*VapiCallControl(house).routes(), *VapiSetupControl(house).routes()],
                ),
                *Control(house).routes(),
            ],
        ),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_SaveFirst, save=house.save)],
        exception_handlers={ValidationError: _tell_what_is_wrong},
    )


class _SaveFirst:
    """Saves the state before each answer."""

    def __init__(self, app: ASGIApp, save: Callable[[], None]) -> None:
        self._app = app
        self._save = save

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def save_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._save()
            await send(message)

        await self._app(scope, receive, save_and_send)


def _provider(
    gate: Gate, name: str, operations: list[tuple[str, str, Handler]], otherwise: Handler
) -> Mount:
    routes = [
        Route(path, gate.endpoint(name, handler), methods=[method])
        for method, path, handler in operations
    ]
    # Requests for unknown paths are recorded in the journal too. Otherwise a test would not notice
    # a client that uses a wrong path.
    routes.append(Route("/{rest:path}", gate.endpoint(name, otherwise), methods=_ALL_METHODS))
    return Mount(f"/{name}", routes=routes)


def _not_found(house: Sandbox, call: Call) -> Answer:
    message = f"no such operation: {call.method} {call.path}"
    return json_answer({"name": "RESOURCE_NOT_FOUND", "message": message}, 404)


async def _tell_what_is_wrong(request: Request, error: Exception) -> Response:
    wrong: list[dict[str, str]] = []
    if isinstance(error, ValidationError):
        for one in error.errors():
            wrong.append({"field": ".".join(map(str, one["loc"])), "why": one["msg"]})
    return JSONResponse({"error": "not understood", "fields": wrong}, 422)
