"""Control of Twilio's stand-in: the endpoints below /_control/twilio."""

from __future__ import annotations

import secrets
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.control_requests import ControlRequest, parse_request, refuse
from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.twilio.events import callback, send_status_callbacks
from sandbox.twilio.state import Account


class NewSubaccount(ControlRequest):
    friendly_name: str = ""


class Change(ControlRequest):
    status: Literal["active", "suspended", "closed"] | None = None
    suspended_by_twilio: bool | None = None
    #: Whether the account gets a new auth token. The old token is then invalid.
    roll_token: bool = False


class NewCall(ControlRequest):
    sid: str
    to: str = "+15005550006"
    from_: str = Field("+15005550001", alias="from")
    status: Literal["queued", "ringing", "in-progress"] = "in-progress"
    #: Address for callbacks about changes of status: "" is the ingress, None means no callbacks.
    callback_url: str | None = None


class NewCallback(ControlRequest):
    sid: str
    url: str = ""
    params: dict[str, str] = Field(default_factory=dict)
    copies: int = Field(1, ge=1, le=200)


class TwilioControl:
    """The endpoints below /_control/twilio."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """List the endpoints below /_control/twilio."""
        return [
            Route("/subaccounts", self.add_subaccount, methods=["POST"]),
            Route("/subaccounts/{sid}", self.get_subaccount, methods=["GET"]),
            Route("/subaccounts/{sid}", self.change_subaccount, methods=["POST"]),
            Route("/calls", self.add_call, methods=["POST"]),
            Route("/callbacks", self.send_callback, methods=["POST"]),
        ]

    async def add_subaccount(self, request: Request) -> Response:
        """Create a subaccount as Twilio itself, without an API request."""
        body = await parse_request(request, NewSubaccount)
        account = self._sandbox.twilio.add_subaccount(body.friendly_name, "twilio")
        return JSONResponse(_shown(account) | {"auth_token": account.auth_token}, 201)

    async def get_subaccount(self, request: Request) -> Response:
        """Show a subaccount's status, its history, and the number of requests to it."""
        account = self._sandbox.twilio.accounts.get(request.path_params["sid"])
        return JSONResponse(_shown(account)) if account else refuse("no such subaccount", 404)

    async def change_subaccount(self, request: Request) -> Response:
        """Change a subaccount as Twilio, or a person at Twilio's console, might.

        If `suspended_by_twilio` is given without a status, it also sets the status that belongs to
        it.
        """
        body = await parse_request(request, Change)
        account = self._sandbox.twilio.accounts.get(request.path_params["sid"])
        if account is None:
            return refuse("no such subaccount", 404)
        status = body.status
        if body.suspended_by_twilio is not None:
            account.suspended_by_twilio = body.suspended_by_twilio
            status = status or ("suspended" if body.suspended_by_twilio else "active")
        if status is not None:
            account.set_status(status, "twilio")
        if body.roll_token:
            account.auth_token = secrets.token_hex(16)
            return JSONResponse(_shown(account) | {"auth_token": account.auth_token})
        return JSONResponse(_shown(account))

    async def add_call(self, request: Request) -> Response:
        """Start a call of a subaccount."""
        body = await parse_request(request, NewCall)
        account = self._sandbox.twilio.accounts.get(body.sid)
        if account is None:
            return refuse("no such subaccount", 404)
        call = self._sandbox.twilio.add_call(account, body.to, body.from_, body.status)
        if body.callback_url is not None:
            send_status_callbacks(self._sandbox, call, body.callback_url)
        return JSONResponse(call.shown, 201)

    async def send_callback(self, request: Request) -> Response:
        """Deliver a signed status callback."""
        body = await parse_request(request, NewCallback)
        account = self._sandbox.twilio.accounts.get(body.sid)
        if account is None:
            return refuse("no such subaccount", 404)
        parcel = callback(self._sandbox, account, body.url, body.params)
        sent = await self._sandbox.courier.send(parcel, copies=body.copies, retry=body.retry)
        return JSONResponse(sent)


def _shown(account: Account) -> Json:
    return {
        "sid": account.sid,
        "friendly_name": account.friendly_name,
        "status": account.status,
        "suspended_by_twilio": account.suspended_by_twilio,
        "history": account.history,
        "requests": account.requests,
    }
