"""The control plane, for what no provider's API offers.

A developer without provider accounts needs it: delivery target, journal, faults, reset.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.control_requests import parse_request, refuse
from sandbox.core import Sandbox
from sandbox.faults import FaultRequest


class Target(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str = Field(pattern=r"^https?://")


class Control:
    """The endpoints that do not belong to one provider."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """List the endpoints below /_control."""
        return [
            Route("/info", self.get_info, methods=["GET"]),
            Route("/target", self.set_target, methods=["POST"]),
            Route("/deliveries", self.list_deliveries, methods=["GET"]),
            Route("/requests", self.list_requests, methods=["GET"]),
            Route("/reset", self.reset, methods=["POST"]),
            Route("/faults", self.add_fault, methods=["POST"]),
            Route("/faults", self.list_faults, methods=["GET"]),
            Route("/faults", self.clear_faults, methods=["DELETE"]),
            Route("/faults/{id}", self.remove_fault, methods=["DELETE"]),
            Route("/faults/{id}/release", self.release_fault, methods=["POST"]),
        ]

    async def get_info(self, request: Request) -> Response:
        """Show the addresses of the stand-ins and what their clients need to connect."""
        return JSONResponse(self._sandbox.info())

    async def set_target(self, request: Request) -> Response:
        """Deliver webhooks to another address from now on."""
        body = await parse_request(request, Target)
        self._sandbox.target = body.url.rstrip("/")
        return JSONResponse({"target": self._sandbox.target})

    async def list_deliveries(self, request: Request) -> Response:
        """Show the recent delivery attempts, oldest first."""
        wanted = request.query_params.get("provider")
        recent = self._sandbox.courier.recent
        return JSONResponse([one for one in recent if wanted in (None, one["provider"])])

    async def list_requests(self, request: Request) -> Response:
        """Show the requests that the stand-ins received, oldest first."""
        query = request.query_params
        found = self._sandbox.journal.find(
            query.get("provider", ""), query.get("path_contains", ""), query.get("method", "")
        )
        return JSONResponse(found)

    async def reset(self, request: Request) -> Response:
        """Forget all state and all faults. Keys and target stay."""
        self._sandbox.reset()
        return JSONResponse({"reset": True})

    async def add_fault(self, request: Request) -> Response:
        """Activate a fault."""
        fault = self._sandbox.faults.add(await parse_request(request, FaultRequest))
        return JSONResponse(fault.to_dict(), 201)

    async def list_faults(self, request: Request) -> Response:
        """Show the faults, with how often each was applied and how many requests it holds."""
        return JSONResponse([fault.to_dict() for fault in self._sandbox.faults.all()])

    async def clear_faults(self, request: Request) -> Response:
        """Remove every fault. Held requests are dropped without effect."""
        self._sandbox.faults.clear()
        return Response(status_code=204)

    async def remove_fault(self, request: Request) -> Response:
        """Remove one fault. The requests that it holds are dropped without effect."""
        if not self._sandbox.faults.remove(request.path_params["id"]):
            return refuse("no such fault", 404)
        return Response(status_code=204)

    async def release_fault(self, request: Request) -> Response:
        """Let the held requests take effect, and answer after they have."""
        fault = self._sandbox.faults.get(request.path_params["id"])
        if fault is None:
            return refuse("no such fault", 404)
        return JSONResponse({"released": await fault.release()})
