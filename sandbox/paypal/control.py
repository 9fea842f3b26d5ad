"""Control of PayPal's stand-in: the endpoints below /_control/paypal."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.control_requests import ControlRequest, Currency, Value, parse_request, refuse
from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.paypal.control_money import MoneyControl
from sandbox.paypal.events import (
    EventContent,
    Forgery,
    deliver,
    forge_body,
    make_event,
    parcel,
)
from sandbox.paypal.scenario import (
    DEFAULT_PLAN,
    AmountRefused,
    Subject,
    UnknownResource,
    apply_event,
    event_type_of_subscription,
)
from sandbox.paypal.state import StoredEvent, set_subscription_status

Status = Literal["APPROVAL_PENDING", "APPROVED", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"]


class NewSubscription(ControlRequest):
    organization_id: str = Field(min_length=1, max_length=127)
    status: Status = "ACTIVE"
    plan_id: str = DEFAULT_PLAN


class NewStatus(ControlRequest):
    status: Status


class NewEvent(ControlRequest):
    event_type: str = Field(pattern=r"^[A-Z-]+(\.[A-Z-]+)+$")
    organization_id: str = ""
    resource_id: str = ""
    #: If None: 49.00 for a payment, the unrefunded rest for a refund, the payment's
    #: amount for a dispute.
    value: Value | None = None
    currency: Currency = "USD"
    keep_state: bool = False
    #: Whether a capture's event creates a payment. If the organization's newest payment is
    #: pending, an event that completes or denies a payment changes that payment instead.
    new_payment: bool = False
    #: Outcome of CUSTOMER.DISPUTE.RESOLVED. If blank, an unresolved dispute is resolved for the
    #: buyer.
    outcome_code: str = Field("", pattern=r"^[A-Z_]{0,64}$")
    copies: int = Field(1, ge=1, le=200)
    event_id: str = ""
    create_time: str = ""
    transmission_id: str = ""
    transmission_time: str = ""
    forge: Forgery | None = None


class Redelivery(ControlRequest):
    copies: int = Field(1, ge=1, le=200)
    forge: Literal["body_crc"] | None = None


class PayPalControl:
    """The endpoints. Each responds after the first attempt of each delivery has ended."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """List the endpoints below /_control/paypal."""
        return [
            Route("/subscriptions", self.add_subscription, methods=["POST"]),
            Route("/subscriptions", self.list_subscriptions, methods=["GET"]),
            Route("/subscriptions/{id}/status", self.set_status, methods=["POST"]),
            Route("/events", self.add_event, methods=["POST"]),
            Route("/events/{id}", self.get_event, methods=["GET"]),
            Route("/events/{id}/redeliver", self.redeliver, methods=["POST"]),
            Route("/tokens", self.revoke_tokens, methods=["DELETE"]),
            *MoneyControl(self._sandbox).routes(),
        ]

    async def add_subscription(self, request: Request) -> Response:
        """Create a subscription and deliver the event of its status."""
        body = await parse_request(request, NewSubscription)
        subscription = self._sandbox.paypal.add_subscription(
            body.plan_id, body.organization_id, body.status
        )
        return await self._deliver_subscription_event(subscription, body, 201)

    async def list_subscriptions(self, request: Request) -> Response:
        """Show all subscriptions, or those of one organization."""
        organization_id = request.query_params.get("organization_id")
        subscriptions = [
            subscription
            for subscription in self._sandbox.paypal.subscriptions.values()
            if organization_id in (None, subscription.get("custom_id"))
        ]
        return JSONResponse(subscriptions)

    async def set_status(self, request: Request) -> Response:
        """Set any status, as PayPal itself might, and deliver the status's event."""
        body = await parse_request(request, NewStatus)
        subscription = self._sandbox.paypal.subscriptions.get(request.path_params["id"])
        if subscription is None:
            return refuse("no such subscription", 404)
        set_subscription_status(subscription, body.status)
        return await self._deliver_subscription_event(subscription, body, 200)

    async def add_event(self, request: Request) -> Response:
        """Set the state that an event implies, and deliver the event."""
        body = await parse_request(request, NewEvent)
        if not (body.organization_id or body.resource_id):
            return refuse("organization_id or resource_id is needed", 422)
        subject = Subject(
            body.organization_id,
            body.resource_id,
            body.value or "",
            body.currency,
            # A forged event must not change PayPal's own state.
            body.keep_state or body.forge is not None,
            body.create_time,
            new_payment=body.new_payment,
            outcome_code=body.outcome_code,
        )
        try:
            content = apply_event(self._sandbox, body.event_type, subject)
        except UnknownResource as error:
            return refuse(f"no such resource: {error}", 404)
        except AmountRefused as error:
            return refuse(str(error), 422)
        envelope = body.model_dump(
            include={"event_id", "create_time", "transmission_id", "transmission_time"}
        )
        content = EventContent(**{**vars(content), **envelope})
        event = make_event(self._sandbox, content, body.forge)
        # The ingress refuses a forgery. Retries would only add noise to the list of deliveries.
        retry = body.retry and body.forge is None
        deliveries: list[Json] = []
        if body.deliver:
            deliveries = await self._send(event, body.copies, retry)
        return JSONResponse(deliveries or [_undelivered_result(event)])

    async def get_event(self, request: Request) -> Response:
        """Show the exact bytes and headers of an event."""
        event = self._sandbox.paypal.events.get(request.path_params["id"])
        if event is None:
            return refuse("no such event", 404)
        return JSONResponse(
            {
                "event_id": event.event_id,
                "event_type": event.event_type,
                "transmission_id": event.transmission_id,
                "headers": event.headers,
                "body": event.body.decode(),
            }
        )

    async def redeliver(self, request: Request) -> Response:
        """Send an event again unchanged, or a forged body under the same headers."""
        body = await parse_request(request, Redelivery)
        event = self._sandbox.paypal.events.get(request.path_params["id"])
        if event is None:
            return refuse("no such event", 404)
        if body.forge == "body_crc":
            event = StoredEvent(
                event.event_id,
                event.event_type,
                event.transmission_id,
                event.headers,
                forge_body(event.body),
            )
        retry = body.retry and body.forge is None
        return JSONResponse(await self._send(event, body.copies, retry))

    async def revoke_tokens(self, request: Request) -> Response:
        """Invalidate every token issued so far."""
        self._sandbox.paypal.tokens.clear()
        return Response(status_code=204)

    async def _deliver_subscription_event(
        self, subscription: Json, body: ControlRequest, status_code: int
    ) -> Response:
        event_type = event_type_of_subscription(subscription["status"])
        content = EventContent(event_type, "subscription", subscription)
        deliveries = await self._deliver(content, body)
        return JSONResponse(subscription | {"deliveries": deliveries}, status_code)

    async def _deliver(self, content: EventContent, body: ControlRequest) -> list[Json]:
        return await deliver(self._sandbox, content, retry=body.retry) if body.deliver else []

    async def _send(self, event: StoredEvent, copies: int, retry: bool) -> list[Json]:
        signed_parcel = parcel(self._sandbox, event)
        return await self._sandbox.courier.send(signed_parcel, copies=copies, retry=retry)


def _undelivered_result(event: StoredEvent) -> Json:
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "transmission_id": event.transmission_id,
        "status_code": None,
        "body": "",
        "headers": {},
        "error": "not delivered, as asked",
    }
