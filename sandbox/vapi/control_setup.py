"""Control of Vapi's stand-in: assistants, numbers, authentication and behaviour."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.control_requests import ControlRequest, parse_request, refuse
from sandbox.core import Sandbox
from sandbox.vapi.behaviour import Behaviour
from sandbox.vapi.state import (
    LONGEST_SECONDS_DEFAULT,
    LONGEST_SECONDS_MAX,
    LONGEST_SECONDS_MIN,
    Authentication,
)


class NewAssistant(ControlRequest):
    name: str = "Assistant"
    max_duration_seconds: int = Field(
        LONGEST_SECONDS_DEFAULT, ge=LONGEST_SECONDS_MIN, le=LONGEST_SECONDS_MAX
    )
    #: Address for the messages of the assistant's calls. If blank, the number's address is used.
    server_url: str = ""


class NewNumber(ControlRequest):
    number: str = Field("+15005550001", pattern=r"^\+[0-9]{6,15}$")
    #: The subaccount that carries the number's calls; blank for none.
    twilio_sid: str = ""
    #: The number's own assistant. If it is set, no assistant-request is sent.
    assistant_id: str = ""
    #: Address for the messages of the number's calls; blank is the ingress.
    server_url: str = ""
    #: Address for Twilio's callbacks about the number's legs: "" is the ingress, None means none.
    leg_callback_url: str | None = None


class AuthenticationChoice(ControlRequest):
    mode: Literal["bearer", "x-vapi-secret", "hmac", "none"]
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    timestamp_unit: Literal["ms", "seconds"] = "ms"


class Misbehaviour(Behaviour):
    """A change of one call's behaviour, or of all. Only the given fields change."""

    call_id: str = ""


class VapiSetupControl:
    """The endpoints about everything except calls."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """List the endpoints below /_control/vapi."""
        return [
            Route("/assistants", self.add_assistant, methods=["POST"]),
            Route("/numbers", self.add_number, methods=["POST"]),
            Route("/authentication", self.set_authentication, methods=["POST"]),
            Route("/behaviour", self.set_behaviour, methods=["POST"]),
            Route("/behaviour", self.get_behaviour, methods=["GET"]),
        ]

    async def add_assistant(self, request: Request) -> Response:
        """Create an assistant."""
        body = await parse_request(request, NewAssistant)
        assistant = self._sandbox.vapi.add_assistant(
            body.name, body.max_duration_seconds, body.server_url
        )
        return JSONResponse(assistant, 201)

    async def add_number(self, request: Request) -> Response:
        """Import a phone number, which a Twilio subaccount carries if `twilio_sid` is set."""
        body = await parse_request(request, NewNumber)
        if body.twilio_sid and body.twilio_sid not in self._sandbox.twilio.accounts:
            return refuse("no such subaccount", 404)
        if body.assistant_id and body.assistant_id not in self._sandbox.vapi.assistants:
            return refuse("no such assistant", 404)
        number = self._sandbox.vapi.add_number(
            body.number,
            body.twilio_sid,
            body.assistant_id,
            body.server_url,
            body.leg_callback_url,
        )
        return JSONResponse(number.shown, 201)

    async def set_authentication(self, request: Request) -> Response:
        """Choose how Vapi's messages are authenticated."""
        body = await parse_request(request, AuthenticationChoice)
        settings = body.model_dump(include={"mode", "algorithm", "timestamp_unit"})
        self._sandbox.vapi.authentication = Authentication(**settings)
        return JSONResponse(settings)

    async def set_behaviour(self, request: Request) -> Response:
        """Change the behaviour of all calls, or of one call."""
        body = await parse_request(request, Misbehaviour)
        changes = body.model_dump(exclude_unset=True, exclude={"call_id"})
        state = self._sandbox.vapi
        if not body.call_id:
            state.behaviour = state.behaviour.model_copy(update=changes)
            return JSONResponse(state.behaviour.model_dump())
        call = state.calls.get(body.call_id)
        if call is None:
            return refuse("no such call", 404)
        call.behaviour |= changes
        return JSONResponse(state.behaviour_of(call).model_dump())

    async def get_behaviour(self, request: Request) -> Response:
        """Show the behaviour of calls without settings of their own."""
        return JSONResponse(self._sandbox.vapi.behaviour.model_dump())
