"""What Vapi is made to do: the control plane under /_control/vapi."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.asking import Asked, refuse, understand
from sandbox.core import Sandbox
from sandbox.vapi.events import Plan, end_of_call_report, live, parcel, status_update
from sandbox.vapi.state import Authentication, epoch_ms


class NewCall(Asked):
    organization_id: str = ""
    to: str = "+15005550006"
    queued_seconds: float = Field(0.05, ge=0)
    ring_seconds: float = Field(0.1, ge=0)
    #: None: the call goes on until it is ended or too long.
    talk_seconds: float | None = Field(None, ge=0)
    max_duration_seconds: float = Field(600, gt=0)
    answered: bool = True
    report: bool = True
    report_after_seconds: float = Field(0.1, ge=0)
    metadata: dict[str, Any] = Field(default_factory=dict)
    #: A subaccount that carries the call, which then has a leg at Twilio too.
    twilio_sid: str = ""


class NewMessage(Asked):
    type: str
    call_id: str = ""
    #: Fields beside `type`, `call` and `timestamp`.
    fields: dict[str, Any] = Field(default_factory=dict)
    retry: bool = False
    copies: int = Field(1, ge=1, le=200)


class Ending(Asked):
    reason: str = "customer-ended-call"


class Proof(Asked):
    mode: Authentication


class VapiControl:
    """The endpoints below /_control/vapi."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """This function will list the endpoints, below /_control/vapi."""
        return [
            Route("/calls", self.add_call, methods=["POST"]),
            Route("/calls/{id}/end", self.end_call, methods=["POST"]),
            Route("/messages", self.send_message, methods=["POST"]),
            Route("/authentication", self.set_authentication, methods=["POST"]),
        ]

    async def add_call(self, request: Request) -> Response:
        """This function will start a call, which lives on by itself."""
        asked = await understand(request, NewCall)
        metadata = dict(asked.metadata)
        if asked.organization_id:
            metadata["organization_id"] = asked.organization_id
        leg = None
        if asked.twilio_sid:
            account = self._sandbox.twilio.accounts.get(asked.twilio_sid)
            if account is None:
                return refuse("no such subaccount", 404)
            leg = self._sandbox.twilio.add_call(account, asked.to, "+15005550001", "in-progress")
        call = self._sandbox.vapi.add_call(
            self._sandbox.api_url("vapi"), asked.to, asked.max_duration_seconds, metadata
        )
        if leg is not None:
            call.shown["phoneCallProviderId"] = leg["sid"]
        plan = Plan(
            leg=leg,
            **asked.model_dump(
                include={
                    "queued_seconds",
                    "ring_seconds",
                    "talk_seconds",
                    "max_duration_seconds",
                    "answered",
                    "report",
                    "report_after_seconds",
                    "deliver",
                }
            ),
        )
        self._sandbox.courier.spawn(live(self._sandbox, call, plan))
        return JSONResponse(call.shown, 201)

    async def end_call(self, request: Request) -> Response:
        """This function will have the customer hang up, or end it for the reason given."""
        asked = await understand(request, Ending)
        call = self._sandbox.vapi.calls.get(request.path_params["id"])
        if call is None:
            return refuse("no such call", 404)
        call.end(asked.reason)
        return JSONResponse(call.shown)

    async def send_message(self, request: Request) -> Response:
        """This function will send one server message, whatever the call's state."""
        asked = await understand(request, NewMessage)
        message: dict[str, Any] = {"type": asked.type, "timestamp": epoch_ms()}
        call = self._sandbox.vapi.calls.get(asked.call_id)
        if asked.call_id and call is None:
            return refuse("no such call", 404)
        if call is not None:
            if asked.type == "end-of-call-report" and call.shown["status"] != "ended":
                return refuse("the call has not ended", 422)
            written = {"status-update": status_update, "end-of-call-report": end_of_call_report}
            write = written.get(asked.type)
            message |= write(call) if write else {"call": dict(call.shown)}
        message |= asked.fields
        addressed = parcel(self._sandbox, message)
        sent = await self._sandbox.courier.send(addressed, copies=asked.copies, retry=asked.retry)
        return JSONResponse(sent)

    async def set_authentication(self, request: Request) -> Response:
        """This function will choose how messages prove their sender."""
        self._sandbox.vapi.authentication = (await understand(request, Proof)).mode
        return JSONResponse({"mode": self._sandbox.vapi.authentication})
