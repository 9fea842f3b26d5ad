"""Control of PayPal's payments: captures, refunds and disputes."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.asking import Asked, Currency, Value, refuse, understand
from sandbox.core import Sandbox
from sandbox.exchange import Json
from sandbox.paypal.disputes import open_dispute, reopen_dispute, resolve_dispute
from sandbox.paypal.events import EventContent, deliver
from sandbox.paypal.scenario import dispute_event
from sandbox.paypal.state import capture_of, money


class NewCapture(Asked):
    organization_id: str = Field(min_length=1, max_length=127)
    value: Value
    currency: Currency = "USD"
    status: Literal["COMPLETED", "PENDING", "DECLINED"] = "COMPLETED"


class NewRefund(Asked):
    value: Value | None = None
    status: Literal["COMPLETED", "PENDING"] = "COMPLETED"
    #: Whether PayPal itself reversed the payment, as after a lost dispute.
    reversal: bool = False


class NewRefundStatus(Asked):
    status: Literal["COMPLETED", "FAILED", "CANCELLED"]


class NewDispute(Asked):
    capture_id: str = Field(min_length=1)
    #: Further payments that the same dispute covers.
    also: list[str] = Field(default=[], max_length=10)
    value: Value | None = None
    currency: Currency | None = None
    #: A cryptocurrency, such as BTC, that is disputed instead of an amount of money.
    asset: str | None = Field(default=None, pattern=r"^[A-Z]{3,10}$")


class Outcome(Asked):
    outcome_code: str = Field(pattern=r"^[A-Z_]{1,64}$")
    refunded: Value | None = None
    #: The part of the refund that the seller paid. PayPal paid the rest. If None, the dispute shows
    #: no money movements.
    borne_by_seller: Value | None = None


class Again(Asked):
    """A request without fields, apart from how to deliver."""


class MoneyControl:
    """The endpoints. Each one responds after the first deliveries were answered."""

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
        asked = await understand(request, NewCapture)
        amount = money(asked.value, asked.currency)
        capture = self._sandbox.paypal.add_capture(asked.organization_id, amount, asked.status)
        content = EventContent(f"PAYMENT.CAPTURE.{asked.status}", "capture", capture)
        return await self._answer(content, asked, 201)

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
        asked = await understand(request, NewRefund)
        state = self._sandbox.paypal
        capture = state.captures.get(request.path_params["id"])
        if capture is None:
            return refuse("no such capture", 404)
        left = state.left_of(capture)
        value = asked.value or f"{left:f}"
        if not state.can_refund(capture, value):
            return refuse(f"{value} cannot be refunded: {left:f} is left", 422)
        refund = state.add_refund(capture, value, asked.status)
        suffix = "REVERSED" if asked.reversal else "REFUNDED"
        return await self._answer(
            EventContent(f"PAYMENT.CAPTURE.{suffix}", "refund", refund), asked, 201
        )

    async def set_refund_status(self, request: Request) -> Response:
        """Let a refund complete, fail or be cancelled, and deliver the event."""
        asked = await understand(request, NewRefundStatus)
        refund = self._sandbox.paypal.refunds.get(request.path_params["id"])
        if refund is None:
            return refuse("no such refund", 404)
        self._sandbox.paypal.set_refund_status(refund, asked.status)
        return await self._answer(
            EventContent(f"PAYMENT.REFUND.{asked.status}", "refund", refund), asked
        )

    async def add_dispute(self, request: Request) -> Response:
        """Dispute a payment, whole or in part, and deliver the event."""
        asked = await understand(request, NewDispute)
        capture = self._sandbox.paypal.captures.get(asked.capture_id)
        if capture is None:
            return refuse("no such capture", 404)
        currency = asked.currency or capture["amount"]["currency_code"]
        amount = money(asked.value or capture["amount"]["value"], currency)
        asset = {"asset_symbol": asked.asset, "quantity": "0.5"} if asked.asset else None
        ids = [asked.capture_id, *asked.also]
        dispute = open_dispute(self._sandbox.paypal, ids, amount, asset)
        return await self._answer(dispute_event("CREATED", dispute), asked, 201)

    async def resolve(self, request: Request) -> Response:
        """Resolve a dispute with any outcome and deliver the event."""
        asked = await understand(request, Outcome)
        dispute = self._sandbox.paypal.disputes.get(request.path_params["id"])
        if dispute is None:
            return refuse("no such dispute", 404)
        currency = dispute.get("dispute_amount", {}).get("currency_code", "USD")
        refunded = money(asked.refunded, currency) if asked.refunded else None
        borne = money(asked.borne_by_seller, currency) if asked.borne_by_seller else None
        resolve_dispute(dispute, asked.outcome_code, refunded, borne)
        return await self._answer(dispute_event("RESOLVED", dispute), asked)

    async def reopen(self, request: Request) -> Response:
        """Reopen a dispute, as an appeal does, and deliver the event."""
        asked = await understand(request, Again)
        dispute = self._sandbox.paypal.disputes.get(request.path_params["id"])
        if dispute is None:
            return refuse("no such dispute", 404)
        reopen_dispute(dispute)
        return await self._answer(dispute_event("UPDATED", dispute), asked)

    async def _answer(self, content: EventContent, asked: Asked, code: int = 200) -> Response:
        deliveries: list[Json] = []
        if asked.deliver:
            deliveries = await deliver(self._sandbox, content, retry=asked.retry)
        return JSONResponse(content.resource | {"deliveries": deliveries}, code)
