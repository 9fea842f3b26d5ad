"""Control of Vapi's calls: the endpoints about calls below /_control/vapi."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.control_requests import ControlRequest, parse_request, refuse
from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.twilio.state import Account
from sandbox.vapi.behaviour import Behaviour
from sandbox.vapi.calls import ANSWER_SECONDS, LiveCall, PhoneNumber, Plan
from sandbox.vapi.events import Forgery, parcel
from sandbox.vapi.life import run_call, start_leg
from sandbox.vapi.messages import allows_call, build_message
from sandbox.vapi.state import LONGEST_SECONDS_DEFAULT

#: Our phone number in a call that uses no number of Vapi's.
_OUR_NUMBER = "+15005550001"


class NewCall(ControlRequest):
    direction: Literal["outbound", "inbound"] = "outbound"
    organization_id: str = ""
    #: The customer's number, in either direction.
    to: str = "+15005550006"
    #: A number made by /numbers. An inbound call requires one.
    number_id: str = ""
    #: An assistant made by /assistants, for an outbound call.
    assistant_id: str = ""
    queued_seconds: float = Field(0.05, ge=0)
    ring_seconds: float = Field(0.1, ge=0)
    #: If None, the call continues until it is ended or reaches its maximum duration.
    talk_seconds: float | None = Field(None, ge=0)
    #: For an outbound call. The duration of an inbound call is set by its admission.
    max_duration_seconds: float | None = Field(None, gt=0)
    answered: bool = True
    report: bool = True
    report_after_seconds: float = Field(0.1, ge=0)
    metadata: dict[str, Any] = Field(default_factory=dict)
    #: The campaign that an outbound call belongs to.
    campaign_id: str = ""
    #: The subaccount that carries the call, if its number names none.
    twilio_sid: str = ""
    #: Address for callbacks about the call's leg. If None, the number's address is used.
    leg_callback_url: str | None = None
    #: Time limit of the response to an inbound call's assistant-request.
    answer_limit_seconds: float = Field(ANSWER_SECONDS, gt=0, le=20)
    behaviour: Behaviour = Behaviour()


class NewMessage(ControlRequest):
    type: str
    call_id: str = ""
    #: Fields in addition to those of the type and the call. They replace fields of the same name.
    fields: dict[str, Any] = Field(default_factory=dict)
    retry: bool = False
    copies: int = Field(1, ge=1, le=200)
    forge: Forgery | None = None


class Ending(ControlRequest):
    reason: str = "customer-ended-call"


class Record(ControlRequest):
    #: Fields that the API shows from now on instead of the call's own, and fields that it omits.
    fields: dict[str, Any] = Field(default_factory=dict)
    without: list[str] = Field(default_factory=list)


class VapiCallControl:
    """The endpoints about calls and the messages about them."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """List the endpoints below /_control/vapi."""
        return [
            Route("/calls", self.add_call, methods=["POST"]),
            Route("/calls", self.list_calls, methods=["GET"]),
            Route("/calls/{id}", self.get_call, methods=["GET"]),
            Route("/calls/{id}/end", self.end_call, methods=["POST"]),
            Route("/calls/{id}/record", self.change_record, methods=["POST"]),
            Route("/messages", self.send_message, methods=["POST"]),
        ]

    async def add_call(self, request: Request) -> Response:
        """Start a call, which then continues by itself.

        An inbound call sends an assistant-request, unless its number has an assistant. get_call
        shows the response.
        """
        body = await parse_request(request, NewCall)
        state = self._sandbox.vapi
        number = state.numbers.get(body.number_id)
        account = self._sandbox.twilio.accounts.get(_carrier(body, number))
        if why := self._why_not(body, number, account):
            return why
        inbound = body.direction == "inbound"
        call = state.add_call(
            self._sandbox.api_url("vapi"),
            "inboundPhoneCall" if inbound else "outboundPhoneCall",
            body.to,
            number,
        )
        if body.campaign_id:
            call.shown["campaignId"] = body.campaign_id
        call.behaviour = body.behaviour.model_dump(exclude_unset=True)
        call.plan = _plan(body)
        if not inbound:
            state.connect(call, state.assistants.get(body.assistant_id), _overrides(body))
        if account is not None:
            ours = number.shown["number"] if number else _OUR_NUMBER
            url = body.leg_callback_url
            if url is None and number is not None:
                url = number.leg_callback_url
            start_leg(self._sandbox, call, account, ours, url)
        self._sandbox.courier.spawn(run_call(self._sandbox, call))
        return JSONResponse(call.shown, 201)

    async def list_calls(self, request: Request) -> Response:
        """Show every call, oldest first, optionally of one status."""
        wanted = request.query_params.get("status")
        calls = self._sandbox.vapi.calls.values()
        found = [one for one in calls if wanted in (None, one.shown["status"])]
        return JSONResponse([self._seen(one) for one in found])

    async def get_call(self, request: Request) -> Response:
        """Show a call with its full history, which only the stand-in knows."""
        call = self._sandbox.vapi.calls.get(request.path_params["id"])
        return JSONResponse(self._seen(call)) if call else refuse("no such call", 404)

    async def end_call(self, request: Request) -> Response:
        """End a call as if the customer had hung up, or for the given reason."""
        body = await parse_request(request, Ending)
        call = self._sandbox.vapi.calls.get(request.path_params["id"])
        if call is None:
            return refuse("no such call", 404)
        call.end(body.reason)
        return JSONResponse(call.shown)

    async def change_record(self, request: Request) -> Response:
        """Change what GET /call/{id} shows of a call. The call itself continues."""
        body = await parse_request(request, Record)
        call = self._sandbox.vapi.calls.get(request.path_params["id"])
        if call is None:
            return refuse("no such call", 404)
        call.shown |= body.fields
        for name in body.without:
            call.shown.pop(name, None)
        return JSONResponse(call.shown)

    async def send_message(self, request: Request) -> Response:
        """Send one server message, whatever the call's state.

        An end-of-call-report is refused before the call has ended. For campaign.predial, each
        delivery also shows whether its response allows the call to the contact.
        """
        body = await parse_request(request, NewMessage)
        call = self._sandbox.vapi.calls.get(body.call_id)
        if body.call_id and call is None:
            return refuse("no such call", 404)
        if call is not None and body.type == "end-of-call-report" and call.ended is None:
            return refuse("the call has not ended", 422)
        message = build_message(body.type, call, self._sandbox.vapi.account_id) | body.fields
        url = call.server_url if call is not None else ""
        addressed = parcel(self._sandbox, message, url, body.forge)
        sent = await self._sandbox.courier.send(addressed, copies=body.copies, retry=body.retry)
        if body.type == "campaign.predial":
            for one in sent:
                one["eligible"] = allows_call(one)
        return JSONResponse(sent)

    def _why_not(
        self, body: NewCall, number: PhoneNumber | None, account: Account | None
    ) -> Response | None:
        if body.number_id and number is None:
            return refuse("no such number", 404)
        if body.assistant_id and body.assistant_id not in self._sandbox.vapi.assistants:
            return refuse("no such assistant", 404)
        if account is None and body.twilio_sid:
            return refuse("no such subaccount", 404)
        if body.direction == "inbound" and number is None:
            return refuse("an inbound call needs a number to ring", 422)
        if body.direction == "inbound" and account is not None and account.status != "active":
            # Twilio rejects the caller (error 10003), so Vapi never receives the call.
            return refuse(f"Twilio rejects it: the account is {account.status}", 409)
        return None

    def _seen(self, call: LiveCall) -> Json:
        return {
            "call": call.shown,
            "decision": call.decision,
            "longest_seconds": call.longest_seconds,
            "made": call.made,
            "began": call.began,
            "ended": call.ended,
            "seconds": call.seconds(),
            "control_messages": len(call.orders),
            "orders": call.orders,
            "spoken": call.spoken,
            "lost": call.lost,
            "leg": call.leg.shown if call.leg else None,
            "behaviour": self._sandbox.vapi.behaviour_of(call).model_dump(),
        }


def _carrier(body: NewCall, number: PhoneNumber | None) -> str:
    of_number: str = number.shown.get("twilioAccountSid", "") if number else ""
    return of_number or body.twilio_sid


def _overrides(body: NewCall) -> Json:
    metadata = dict(body.metadata)
    if body.organization_id:
        metadata["organization_id"] = body.organization_id
    longest = body.max_duration_seconds
    if longest is None and body.assistant_id:
        return {"metadata": metadata}
    return {"metadata": metadata, "maxDurationSeconds": longest or LONGEST_SECONDS_DEFAULT}


def _plan(body: NewCall) -> Plan:
    return Plan(
        queued_seconds=body.queued_seconds,
        ring_seconds=body.ring_seconds,
        talk_seconds=body.talk_seconds,
        answered=body.answered,
        report=body.report,
        report_after_seconds=body.report_after_seconds,
        answer_limit_seconds=body.answer_limit_seconds,
        deliver=body.deliver,
    )
