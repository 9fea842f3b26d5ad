"""Control of Stripe's stand-in: the endpoints below /_control/stripe."""

from __future__ import annotations

import copy
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.control_requests import ControlRequest, parse_request, refuse
from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.stripe.events import Forgery, parcel
from sandbox.stripe.state import invoice_of, new_id, set_subscription_status

Status = Literal[
    "incomplete",
    "incomplete_expired",
    "trialing",
    "active",
    "past_due",
    "canceled",
    "unpaid",
    "paused",
]


class NewSubscription(ControlRequest):
    organization_id: str = Field(min_length=1)
    status: Status = "active"
    price: str = "price_holdfastsandbox"


class NewStatus(ControlRequest):
    status: Status


class NewSession(ControlRequest):
    organization_id: str = Field(min_length=1)
    #: In the currency's minor unit, as at Stripe.
    amount: int = Field(2500, ge=1)
    currency: str = Field("usd", pattern=r"^[a-z]{3}$")
    payment_status: Literal["paid", "unpaid", "no_payment_required"] = "paid"


class NewEvent(ControlRequest):
    event_type: str
    organization_id: str = ""
    resource_id: str = ""
    keep_state: bool = False
    copies: int = Field(1, ge=1, le=200)
    event_id: str = ""
    created: int = 0
    forge: Forgery | None = None


class StripeControl:
    """The endpoints. Each responds after the first attempt of each delivery has ended."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """List the endpoints below /_control/stripe."""
        return [
            Route("/subscriptions", self.add_subscription, methods=["POST"]),
            Route("/subscriptions/{id}/status", self.set_status, methods=["POST"]),
            Route("/sessions", self.complete_session, methods=["POST"]),
            Route("/events", self.add_event, methods=["POST"]),
            Route("/events/{id}/redeliver", self.redeliver, methods=["POST"]),
        ]

    async def add_subscription(self, request: Request) -> Response:
        """Create a subscription and deliver its creation event."""
        body = await parse_request(request, NewSubscription)
        metadata = {"organization_id": body.organization_id}
        subscription = self._sandbox.stripe.add_subscription(
            new_id("cus"), body.price, metadata, body.status
        )
        return await self._deliver_event("customer.subscription.created", subscription, body, 201)

    async def set_status(self, request: Request) -> Response:
        """Set the subscription's status, whatever it was, and deliver the event."""
        body = await parse_request(request, NewStatus)
        subscription = self._sandbox.stripe.subscriptions.get(request.path_params["id"])
        if subscription is None:
            return refuse("no such subscription", 404)
        set_subscription_status(subscription, body.status)
        change = "deleted" if body.status == "canceled" else "updated"
        return await self._deliver_event(f"customer.subscription.{change}", subscription, body, 200)

    async def complete_session(self, request: Request) -> Response:
        """Create a Checkout session that a buyer has completed, and deliver the event."""
        body = await parse_request(request, NewSession)
        session = self._sandbox.stripe.add_session(
            {"organization_id": body.organization_id}, body.amount, body.currency
        )
        session["status"] = "complete"
        session["payment_status"] = body.payment_status
        session["payment_intent"] = new_id("pi")
        return await self._deliver_event("checkout.session.completed", session, body, 201)

    async def add_event(self, request: Request) -> Response:
        """Set the state that an event implies, and deliver the event."""
        body = await parse_request(request, NewEvent)
        state = self._sandbox.stripe
        if body.event_type.startswith("checkout.session."):
            resource = state.sessions.get(body.resource_id)
        elif body.resource_id:
            resource = state.subscriptions.get(body.resource_id)
        else:
            resource = state.newest_subscription(body.organization_id)
        if resource is None:
            return refuse("no such resource", 404)
        content = self._change_resource(body, resource)
        event = state.add_event(
            body.event_type, copy.deepcopy(content), body.event_id, body.created
        )
        deliveries = await self._sandbox.courier.send(
            parcel(self._sandbox, event, body.forge),
            copies=body.copies,
            retry=body.retry and body.forge is None,
        )
        return JSONResponse(deliveries)

    async def redeliver(self, request: Request) -> Response:
        """Send an event again with a new signature, as Stripe does."""
        body = await parse_request(request, ControlRequest)
        event = self._sandbox.stripe.events.get(request.path_params["id"])
        if event is None:
            return refuse("no such event", 404)
        deliveries = await self._sandbox.courier.send(
            parcel(self._sandbox, event), retry=body.retry
        )
        return JSONResponse(deliveries)

    def _change_resource(self, body: NewEvent, resource: Json) -> Json:
        """Change the resource as the event implies; return the event's content."""
        if body.keep_state:
            resource = copy.deepcopy(resource)
        match body.event_type:
            case "customer.subscription.deleted":
                set_subscription_status(resource, "canceled")
            case "invoice.payment_failed":
                set_subscription_status(resource, "past_due")
                return invoice_of(resource, paid=False)
            case "invoice.paid":
                set_subscription_status(resource, "active")
                return invoice_of(resource, paid=True)
            case "checkout.session.completed":
                resource |= {"status": "complete", "payment_status": "paid"}
            case "checkout.session.expired":
                resource |= {"status": "expired"}
        return resource

    async def _deliver_event(
        self, event_type: str, resource: Json, body: ControlRequest, code: int
    ) -> Response:
        deliveries: list[Json] = []
        if body.deliver:
            event = self._sandbox.stripe.add_event(event_type, copy.deepcopy(resource))
            deliveries = await self._sandbox.courier.send(
                parcel(self._sandbox, event), retry=body.retry
            )
        return JSONResponse(resource | {"deliveries": deliveries}, code)
