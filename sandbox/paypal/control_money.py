"""Control of PayPal's payments: captures, refunds and disputes."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.control_requests import ControlRequest, Currency, Value, parse_request, refuse
from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.paypal.disputes import open_dispute, reopen_dispute, resolve_dispute
from sandbox.paypal.events import EventContent, deliver
from sandbox.paypal.scenario import dispute_event
from sandbox.paypal.state import capture_of, money


class NewCapture(ControlRequest):
    organization_id: str = Field(min_length=1, max_length=127)
    value: Value
    currency: Currency = "USD"
    status: Literal["COMPLETED", "PENDING", "DECLINED"] = "COMPLETED"


class NewRefund(ControlRequest):
    value: Value | None = None
    status: Literal["COMPLETED", "PENDING"] = "COMPLETED"
    #: Whether PayPal itself reversed the payment, as after a lost dispute.
    reversal: bool = False


class NewRefundStatus(ControlRequest):
    status: Literal["COMPLETED", "FAILED", "CANCELLED"]


class NewDispute(ControlRequest):
    capture_id: str = Field(min_length=1)
    #: Further payments that the same dispute covers.
    also: list[str] = Field(default=[], max_length=10)
    value: Value | None = None
    currency: Currency | None = None
    #: A cryptocurrency, such as BTC, that is disputed instead of an amount of money.
    asset: str | None = Field(default=None, pattern=r"^[A-Z]{3,10}$")


class Outcome(ControlRequest):
    outcome_code: str = Field(pattern=r"^[A-Z_]{1,64}$")
    refunded: Value | None = None
    #: The part of the refund that the seller paid. PayPal paid the rest. If None, the dispute shows
    #: no money movements.
    borne_by_seller: Value | None = None


class MoneyControl:
    """The endpoints. Each responds after the first attempt of each delivery has ended."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """List the endpoints below /_control/paypal."""
        return [
            Route("/captures", self.add_capture, methods=["POST"]),
            Route("/captures", self.list_captures, methods=["GET"]),
            Route("/captures/{id}/refund", self.refund_capture, methods=["POST"]),
            Route("/refunds/{id}/status", self.set_refund_status, methods=["POST"]),
            Route("/disputes", self.add_dispute, methods=["POST"]),
            Route("/disputes/{id}/resolve", self.resolve, methods=["POST"]),
            Route("/disputes/{id}/reopen", self.reopen, methods=["POST"]),
        ]

    async def add_capture(self, request: Request) -> Response:
        """Create a payment and deliver its event."""
        body = await parse_request(request, NewCapture)
        amount = money(body.value, body.currency)
        capture = self._sandbox.paypal.add_capture(body.organization_id, amount, body.status)
        content = EventContent(f"PAYMENT.CAPTURE.{body.status}", "capture", capture)
        return await self._answer(content, body, 201)

    async def list_captures(self, request: Request) -> Response:
        """Show every payment, with the total of its refunds."""
        state = self._sandbox.paypal
        totals: dict[str, Decimal] = {}
        for refund in state.refunds.values():
            if refund["status"] in ("COMPLETED", "PENDING"):
                about = capture_of(refund)
                totals[about] = totals.get(about, Decimal(0)) + Decimal(refund["amount"]["value"])
        return JSONResponse(
            [
                capture | {"refunded": f"{totals.get(capture['id'], Decimal(0)):f}"}
                for capture in state.captures.values()
            ]
        )

    async def refund_capture(self, request: Request) -> Response:
        """Refund part of a payment, or all that is left, and deliver the event."""
        body = await parse_request(request, NewRefund)
        state = self._sandbox.paypal
        capture = state.captures.get(request.path_params["id"])
        if capture is None:
            return refuse("no such capture", 404)
        left = state.unrefunded_of(capture)
        value = body.value or f"{left:f}"
        if not state.can_refund(capture, value):
            return refuse(f"{value} cannot be refunded: {left:f} is left", 422)
        refund = state.add_refund(capture, value, body.status)
        suffix = "REVERSED" if body.reversal else "REFUNDED"
        return await self._answer(
            EventContent(f"PAYMENT.CAPTURE.{suffix}", "refund", refund), body, 201
        )

    async def set_refund_status(self, request: Request) -> Response:
        """Let a refund complete, fail or be cancelled, and deliver the event."""
        body = await parse_request(request, NewRefundStatus)
        refund = self._sandbox.paypal.refunds.get(request.path_params["id"])
        if refund is None:
            return refuse("no such refund", 404)
        self._sandbox.paypal.set_refund_status(refund, body.status)
        return await self._answer(
            EventContent(f"PAYMENT.REFUND.{body.status}", "refund", refund), body
        )

    async def add_dispute(self, request: Request) -> Response:
        """Dispute a payment, whole or in part, and deliver the event."""
        body = await parse_request(request, NewDispute)
        capture = self._sandbox.paypal.captures.get(body.capture_id)
        if capture is None:
            return refuse("no such capture", 404)
        currency = body.currency or capture["amount"]["currency_code"]
        amount = money(body.value or capture["amount"]["value"], currency)
        asset = {"asset_symbol": body.asset, "quantity": "0.5"} if body.asset else None
        ids = [body.capture_id, *body.also]
        dispute = open_dispute(self._sandbox.paypal, ids, amount, asset)
        return await self._answer(dispute_event("CREATED", dispute), body, 201)

    async def resolve(self, request: Request) -> Response:
        """Resolve a dispute with any outcome and deliver the event."""
        body = await parse_request(request, Outcome)
        dispute = self._sandbox.paypal.disputes.get(request.path_params["id"])
        if dispute is None:
            return refuse("no such dispute", 404)
        currency = dispute.get("dispute_amount", {}).get("currency_code", "USD")
        refunded = money(body.refunded, currency) if body.refunded else None
        borne = money(body.borne_by_seller, currency) if body.borne_by_seller else None
        resolve_dispute(dispute, body.outcome_code, refunded, borne)
        return await self._answer(dispute_event("RESOLVED", dispute), body)

    async def reopen(self, request: Request) -> Response:
        """Reopen a dispute, as an appeal does, and deliver the event."""
        body = await parse_request(request, ControlRequest)
        dispute = self._sandbox.paypal.disputes.get(request.path_params["id"])
        if dispute is None:
            return refuse("no such dispute", 404)
        reopen_dispute(dispute)
        return await self._answer(dispute_event("UPDATED", dispute), body)

    async def _answer(
        self, content: EventContent, body: ControlRequest, code: int = 200
    ) -> Response:
        deliveries: list[Json] = []
        if body.deliver:
            deliveries = await deliver(self._sandbox, content, retry=body.retry)
        return JSONResponse(content.resource | {"deliveries": deliveries}, code)
