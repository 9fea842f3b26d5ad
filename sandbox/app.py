"""Builds the sandbox's application: one path per provider, and the control plane."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.control import Control
from sandbox.core import Sandbox
from sandbox.exchange import Answer, ApiRequest, json_answer
from sandbox.gate import Gate, Handler
from sandbox.paypal import api as paypal
from sandbox.paypal.control import PayPalControl
from sandbox.stripe import api as stripe
from sandbox.stripe.control import StripeControl
from sandbox.twilio import api as twilio
from sandbox.twilio.control import TwilioControl
from sandbox.vapi import api as vapi
from sandbox.vapi.control import VapiCallControl
from sandbox.vapi.control_setup import VapiSetupControl

_ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def build_app(sandbox: Sandbox) -> Starlette:
    """Build the application that serves one sandbox."""
    gate = Gate(sandbox)
    routes: list[BaseRoute] = [
        _provider_mount(gate, "paypal", paypal.operations(), _not_found),
        _provider_mount(gate, "twilio", twilio.operations(), twilio.not_found),
        _provider_mount(gate, "stripe", stripe.operations(), _not_found),
        _provider_mount(gate, "vapi", vapi.operations(), _not_found),
        Mount(
            "/_control",
            routes=[
                Mount("/paypal", routes=PayPalControl(sandbox).routes()),
                Mount("/twilio", routes=TwilioControl(sandbox).routes()),
                Mount("/stripe", routes=StripeControl(sandbox).routes()),
                Mount(
                    "/vapi",
                    routes=[
                        *VapiCallControl(sandbox).routes(),
                        *VapiSetupControl(sandbox).routes(),
                    ],
                ),
                *Control(sandbox).routes(),
            ],
        ),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_SaveBeforeResponse, save=sandbox.save)],
        exception_handlers={ValidationError: _refuse_invalid_body},
    )


class _SaveBeforeResponse:
    """Saves the sandbox's state before each response."""

    def __init__(self, app: ASGIApp, save: Callable[[], None]) -> None:
        self._app = app
        self._save = save

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def save_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._save()
            await send(message)

        await self._app(scope, receive, save_and_send)


def _provider_mount(
    gate: Gate, name: str, operations: list[tuple[str, str, Handler]], unknown_path_handler: Handler
) -> Mount:
    routes = [
        Route(path, gate.endpoint(name, handler), methods=[method])
        for method, path, handler in operations
    ]
    # Requests for unknown paths are recorded in the journal too. Otherwise a test would not notice
    # a client that uses a wrong path.
    routes.append(
        Route("/{rest:path}", gate.endpoint(name, unknown_path_handler), methods=_ALL_METHODS)
    )
    return Mount(f"/{name}", routes=routes)


def _not_found(sandbox: Sandbox, request: ApiRequest) -> Answer:
    message = f"no such operation: {request.method} {request.path}"
    return json_answer({"name": "RESOURCE_NOT_FOUND", "message": message}, 404)


async def _refuse_invalid_body(request: Request, error: Exception) -> Response:
    invalid_fields: list[dict[str, str]] = []
    if isinstance(error, ValidationError):
        for field_error in error.errors():
            invalid_fields.append(
                {"field": ".".join(map(str, field_error["loc"])), "why": field_error["msg"]}
            )
    return JSONResponse({"error": "not understood", "fields": invalid_fields}, 422)
