"""The API's routes: for each path, its function and the scope it needs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingress.api import billing, calls
from ingress.api.endpoint import ApiEndpoint
from ingress.api.openapi import document
from ingress.problems import describe_problem

_READS_WALLET, _READS_CALLS, _WRITES_CALLS = "wallet:read", "calls:read", "calls:write"


def routes(api: ApiEndpoint) -> list[Route]:
    """List the API's routes."""
    reads = [
        ("/api/billing/wallet", _READS_WALLET, billing.read_wallet),
        ("/api/wallet/balance", _READS_WALLET, billing.read_wallet),
        ("/api/billing/wallet/transactions", _READS_WALLET, billing.read_transactions),
        ("/api/calls/costs", _READS_CALLS, calls.read_costs),
        ("/api/calls/{id}", _READS_CALLS, calls.read_call),
    ]
    writes = [
        ("/api/billing/reserve-credits", _WRITES_CALLS, billing.reserve_credits),
        ("/api/billing/commit-credits", _WRITES_CALLS, billing.commit_credits),
    ]
    return [
        *(Route(path, api.endpoint(scope, work), methods=["GET"]) for path, scope, work in reads),
        *(Route(path, api.endpoint(scope, work), methods=["POST"]) for path, scope, work in writes),
        Route("/problems/{code}", describe_problem, methods=["GET"]),
        Route("/api/openapi.json", _describe, methods=["GET"]),
    ]


async def _describe(_request: Request) -> Response:
    return JSONResponse(document())
