"""The API's routes: each path has a function and a scope that the token needs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingress.api import billing, calls
from ingress.api.endpoint import ApiEndpoint
from ingress.api.openapi import document
from ingress.problems import describe_problem

_WALLET_READ_SCOPE, _CALLS_READ_SCOPE, _CALLS_WRITE_SCOPE = (
    "wallet:read",
    "calls:read",
    "calls:write",
)


def routes(api: ApiEndpoint) -> list[Route]:
    """List the API's routes."""
    get_routes = [
        ("/api/billing/wallet", _WALLET_READ_SCOPE, billing.read_wallet),
        ("/api/wallet/balance", _WALLET_READ_SCOPE, billing.read_wallet),
        ("/api/billing/wallet/transactions", _WALLET_READ_SCOPE, billing.read_transactions),
        ("/api/calls/costs", _CALLS_READ_SCOPE, calls.read_costs),
        ("/api/calls/{id}", _CALLS_READ_SCOPE, calls.read_call),
    ]
    post_routes = [
        ("/api/billing/reserve-credits", _CALLS_WRITE_SCOPE, billing.reserve_credits),
        ("/api/billing/commit-credits", _CALLS_WRITE_SCOPE, billing.commit_credits),
    ]
    return [
        *(
            Route(path, api.endpoint(scope, function), methods=["GET"])
            for path, scope, function in get_routes
        ),
        *(
            Route(path, api.endpoint(scope, function), methods=["POST"])
            for path, scope, function in post_routes
        ),
        Route("/problems/{code}", describe_problem, methods=["GET"]),
        Route("/api/openapi.json", _show_openapi, methods=["GET"]),
    ]


async def _show_openapi(_request: Request) -> Response:
    return JSONResponse(document())
